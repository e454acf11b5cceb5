"""What somebody at the operator's door hears."""

from routstr.errors.base import RoutstrError


class AdminRequired(RoutstrError):
    """Only the operator may do this; log in, or send an admin token."""

    status, type, code = 403, "permission_error", "admin_required"


class EnrolmentRequired(AdminRequired):
    """The set-up is not over: connect an authenticator app first, at /admin/enrol."""

    code = "enrolment_required"


class CsrfFailed(RoutstrError):
    """This did not come from the node's own page, or the page is too old; load it again."""

    status, type, code = 403, "permission_error", "csrf_failed"


class InvalidCredentials(RoutstrError):
    """Wrong password or code; a code is good once."""

    status, type, code = 401, "authentication_error", "invalid_credentials"


class TotpRequired(RoutstrError):
    """A fresh code of your authenticator app is needed for this."""

    status, type, code = 401, "authentication_error", "totp_required"


class SetupRefused(RoutstrError):
    """This set-up link is not valid, or was used."""

    status, type, code = 403, "permission_error", "setup_refused"
