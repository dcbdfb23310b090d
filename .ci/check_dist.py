"""Check that the wheel and the source distribution hold all they must and nothing odd. Usage: check_dist.py FOLDER"""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

folder = Path(sys.argv[1])
(wheel,) = folder.glob("*.whl")
(sdist,) = folder.glob("*.tar.gz")
tracked = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout.splitlines()
package = {name for name in tracked if name.startswith("npprelnorm/")}
problems = []

in_wheel = set(zipfile.ZipFile(wheel).namelist())
problems += [f"not in the wheel: {name}" for name in sorted(package - in_wheel)]
problems += [f"odd in the wheel: {name}" for name in sorted(in_wheel - package) if not name.startswith("npprelnorm-")]
info = f"{wheel.name.rsplit('-py3', 1)[0]}.dist-info"
problems += [
    f"not in the wheel: {name}"
    for name in (f"{info}/entry_points.txt", f"{info}/licenses/LICENSE", "npprelnorm/py.typed")
    if name not in in_wheel
]
for suffix in (".safetensors", ".json", ".md"):
    if not any(name.startswith("npprelnorm/assets/") and name.endswith(suffix) for name in in_wheel):
        problems.append(f"no {suffix} file below npprelnorm/assets/ in the wheel")

with tarfile.open(sdist) as archive:
    in_sdist = {name.partition("/")[2] for name in archive.getnames()}
missing = {name for name in tracked if name.partition("/")[0] in {"npprelnorm", "tests", "README.md", "LICENSE"}}
problems += [f"not in the source distribution: {name}" for name in sorted(missing - in_sdist)]

print(f"{wheel.name}: {len(in_wheel)} files, {wheel.stat().st_size} bytes; {sdist.name}: {sdist.stat().st_size} bytes")
if problems:
    raise SystemExit("\n".join(problems))
