"""Check that built API pages hold every member that the tests hold to an example. Usage: check_pages.py FOLDER"""

import re
import sys
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from test_docs import PAGES, described, modules

folder = Path(sys.argv[1])
# four lines of text, then one object a line: name, domain:role, priority, address, title
inventory = zlib.decompress((folder / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode()
built = set(re.findall(r"^(\S+) py:", inventory, re.MULTILINE))
wanted = {
    f"{module.__name__}.{name}" for page in PAGES for module, out in modules(page) for name, _ in described(module, out)
}
problems = [f"on no page: {name}" for name in sorted(wanted - built)]
for page in sorted(folder.glob("*.html")):
    text = re.sub(r"<pre>.*?</pre>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for raw in (r"\|", "Alias for field", ":type:", "automodule::"):
        if raw in text:
            problems.append(f"{page.name} shows {raw!r}: see tools/docs/conf.py")

print(f"{len(wanted)} functions and methods on {len(PAGES)} pages")
if problems:
    raise SystemExit("\n".join(problems))
