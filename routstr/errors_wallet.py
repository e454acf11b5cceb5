"""The branch of the error tree that is the operator's: profit and the wallet; else as `errors`."""

from routstr.errors import InvalidRequest


class ProfitTooSmall(InvalidRequest):
    """There is less profit than that."""

    code = "profit_too_small"


class RestoreRefused(InvalidRequest):
    """A wallet is restored into a database without one."""

    code = "restore_refused"
