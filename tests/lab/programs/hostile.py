"""hostile.py FOLDER STARTED: runs STARTED's maker under each policy of FOLDER (tests/hostile) and sees it refused.

Prints what is not as expected, and last how many were. Exit 1 when one was not refused as it should.
"""
import os
import subprocess
import sys


def refused(path, line, words, result):
    if result.returncode != 125:
        return False
    lines = result.stderr.decode(errors="replace").splitlines()
    where = f"latchkey: {path}:{line}:" if line != "0" else f"latchkey: {path}"
    return bool(words) and any(each.startswith(where) and words in each for each in lines)


def main():
    folder, started = sys.argv[1:]
    wrong = count = 0
    with open(os.path.join(folder, "expected"), encoding="utf-8") as file:
        for row in file:
            name, line, words = row.rstrip("\n").split("\t")
            path = os.path.join(folder, name)
            command = ["latchkey", "run", "-p", path, "--", "/bin/touch", started]
            result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
            count += 1
            if not refused(path, line, words, result) or os.path.exists(started):
                wrong += 1
                print(name, line, words, result.returncode, result.stderr[:300])
    print(f"{count} refused, {wrong} wrong")
    sys.exit(1 if wrong or count < 1000 else 0)


main()
