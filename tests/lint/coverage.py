#!/usr/bin/env python3
"""Which test proves which row: writes docs/protocol-coverage.md and docs/security-coverage.md.

    tests/lint/coverage.py            write both
    tests/lint/coverage.py --check    change nothing; fail if they are out of date or a test cites
                                      a row that does not exist

A test cites a row by its number anywhere in its text: `# rows: B012 S22`, `/* B012: ... */`.
Ranges are not understood, on purpose: a citation is a claim about one row.
"""
import glob
import os
import re
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TESTS = ("tests/unit/*.c", "tests/fuzz/*.c", "tests/e2e/*", "tests/*/test_*.py", "tests/lint/*.sh")
ROW = re.compile(r"\b(?:B\d{3}|[SD]\d{2})\b")
PAGES = {
    "docs/protocol-coverage.md": ("BD", "Protocol and behaviour: which test proves which row"),
    "docs/security-coverage.md": ("S", "Security requirements: which test proves which row"),
}


def rows():
    with open(f"{TOP}/tests/lint/rows.txt", encoding="utf-8") as f:
        return dict(line.rstrip("\n").split("\t", 1) for line in f if "\t" in line)


def citations():
    found = {}
    for path in sorted({p for pattern in TESTS for p in glob.glob(f"{TOP}/{pattern}") if os.path.isfile(p)}):
        with open(path, encoding="utf-8", errors="replace") as f:
            for number, line in enumerate(f, 1):
                for row in ROW.findall(line):
                    found.setdefault(row, {}).setdefault(os.path.relpath(path, TOP), number)
    return found


def page(title, letters, known, found):
    mine = [r for r in known if r[0] in letters]
    bare = [r for r in mine if r not in found]
    lines = [f"# {title}", "",
             "Made by `make coverage` (tests/lint/coverage.py) from the rows that tests cite; not written by hand.", "",
             f"{len(mine) - len(bare)} of {len(mine)} rows are cited by a test; {len(bare)} are not.", "",
             "| row | what must hold | tests |", "|---|---|---|"]
    for row in mine:
        tests = ", ".join(f"`{path.removeprefix('tests/')}`" for path in found.get(row, {}))
        lines.append(f"| {row} | {known[row].replace('|', chr(92) + '|')} | {tests or '**none**'} |")
    lines += ["", "## Cited by no test", "", ", ".join(bare) or "None.", ""]
    return "\n".join(lines)


def main():
    check = sys.argv[1:] == ["--check"]
    known, found = rows(), citations()
    bad = False
    for row in sorted(set(found) - set(known)):
        for path, number in found[row].items():
            print(f"{path}:{number}: cites {row}, which is not in tests/lint/rows.txt")
            bad = True
    os.makedirs(f"{TOP}/docs", exist_ok=True)
    for name, (letters, title) in PAGES.items():
        text = page(title, letters, known, found)
        path = f"{TOP}/{name}"
        old = ""
        if os.path.exists(path):
            with open(path, encoding="utf-8") as f:
                old = f.read()
        if check and old != text:
            print(f"{name}:1: out of date; run make coverage")
            bad = True
        elif not check and old != text:
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
