"""Runs modules of CPython's own tests and writes a line `OUTCOME ID` for each case and subtest to a file.

python_results.py FILE MODULE...: `ok`, `skip`, `fail`, `error`, `xfail` or `xpass`. What needs another network is skipped. The exit status is 0
whatever came out: who runs it compares the files.
"""

import faulthandler
import sys
import unittest

from test import support


# Hangs where the machine is itself a guest with a vsock whose host does not answer.
LEFT_OUT = ('.ThreadedVSOCKSocketStreamTest',)
LIMIT = 120  # seconds for one case; one that takes longer ends the run, with every thread's stack


class Results(unittest.TestResult):
    def __init__(self, lines):
        super().__init__()
        self.lines = lines

    def note(self, outcome, test):
        print(outcome, test.id(), file=self.lines, flush=True)

    def startTest(self, test):
        super().startTest(test)
        faulthandler.dump_traceback_later(LIMIT, exit=True)

    def stopTest(self, test):
        faulthandler.cancel_dump_traceback_later()
        super().stopTest(test)

    def addSuccess(self, test):
        self.note('ok', test)

    def addSkip(self, test, reason):
        self.note('skip', test)

    def addFailure(self, test, error):
        super().addFailure(test, error)
        self.note('fail', test)

    def addError(self, test, error):
        super().addError(test, error)
        self.note('error', test)

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        if error is not None:
            self.note('fail' if issubclass(error[0], test.failureException) else 'error', subtest)

    def addExpectedFailure(self, test, error):
        self.note('xfail', test)

    def addUnexpectedSuccess(self, test):
        self.note('xpass', test)


def cases(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from cases(test)
        elif not any(name in test.id() for name in LEFT_OUT):
            yield test


def main():
    support.use_resources = ['cpu', 'network', 'subprocess', 'walltime']
    with open(sys.argv[1], 'w') as lines:
        results = Results(lines)
        suite = unittest.defaultTestLoader.loadTestsFromNames(sys.argv[2:])
        unittest.TestSuite(cases(suite)).run(results)
        for test, trace in results.failures + results.errors:
            print(f'{test.id()}:\n{trace}')


main()
