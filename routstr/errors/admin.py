"""What somebody at the operator's door hears."""

from routstr.errors.base import RoutstrError


class AdminRequired(RoutstrError):
    """Only the operator may do this; log in, or send an admin token."""

    status, type, code = 403, "permission_error", "admin_required"
