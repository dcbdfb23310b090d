"""What can be taught from files: each task reads its lines, makes examples of them, and judges a model on others."""
