"""What the parts of sock.py share: names of errors and families, and the alarm."""

import errno
import socket


class GivenUp(Exception):
    """The alarm."""


def give_up(_signal, _frame):
    raise GivenUp


def name_of(number):
    return "EOPNOTSUPP" if number == errno.EOPNOTSUPP else errno.errorcode.get(number, str(number))


def word(error):
    return type(error).__name__ if error.errno is None else name_of(error.errno)


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET
