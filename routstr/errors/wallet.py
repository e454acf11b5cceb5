"""What the operator may not do with profit and wallet."""

from routstr.errors.request import InvalidRequest


class ProfitTooSmall(InvalidRequest):
    """There is less profit than that."""

    code = "profit_too_small"


class RestoreRefused(InvalidRequest):
    """A wallet is restored into a database without one."""

    code = "restore_refused"
