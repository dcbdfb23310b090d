"""Fail unless a pytest run (junit xml) had tests and skipped none. Usage: all_ran.py FILE.xml"""

import sys
import xml.etree.ElementTree as ElementTree

suites = list(ElementTree.parse(sys.argv[1]).getroot().iter("testsuite"))
counts = {name: sum(int(suite.get(name, 0)) for suite in suites) for name in ("tests", "skipped", "failures", "errors")}
print(", ".join(f"{count} {name}" for name, count in counts.items()))
if counts["tests"] == 0:
    raise SystemExit("no test ran")
if counts["skipped"] or counts["failures"] or counts["errors"]:
    raise SystemExit("every one of these tests must run and pass")
