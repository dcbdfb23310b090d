"""What the encoder's kernel is told: a table of addresses and sizes, by place."""

from __future__ import annotations

PLAN = (
    "threads", "layers", "rows", "reads", "sequences", "width", "inner", "heads", "activation", "eps", "post_ln",
    "storage", "order", "bounds", "keys", "read", "read_bounds", "weights", "norm_weight", "norm_bias",
    "x", "u", "qkv", "context", "y", "hidden", "out", "x_read", "u_read", "scratch", "scratch_size", "room", "counters",
    "hidden_stride", "most_keys",
    "tokens", "read_tokens", "bias", "bias_of_sequence", "bias_of_head", "bias_of_token",
    "memory", "memory_start", "memory_capacity",
    "cross", "cross_keys", "cross_bias", "cross_bias_of_sequence", "cross_bias_of_head", "cross_bias_of_token",
)  # fmt: skip
(
    THREADS, LAYERS, ROWS, READS, SEQUENCES, WIDTH, INNER, HEADS, ACTIVATION, EPS, POST_LN,
    STORAGE, ORDER, BOUNDS, KEYS, READ, READ_BOUNDS, WEIGHTS, NORM_WEIGHT, NORM_BIAS,
    X, U, QKV, CONTEXT, Y, HIDDEN, OUT, X_READ, U_READ, SCRATCH, SCRATCH_SIZE, ROOM, COUNTERS,
    HIDDEN_STRIDE, MOST_KEYS,
    TOKENS, READ_TOKENS, BIAS, BIAS_OF_SEQUENCE, BIAS_OF_HEAD, BIAS_OF_TOKEN,
    MEMORY, MEMORY_START, MEMORY_CAPACITY,
    CROSS, CROSS_KEYS, CROSS_BIAS, CROSS_BIAS_OF_SEQUENCE, CROSS_BIAS_OF_HEAD, CROSS_BIAS_OF_TOKEN,
) = range(len(PLAN))  # fmt: skip
PLAN_SIZE = len(PLAN)
