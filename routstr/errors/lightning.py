"""What is wrong with an invoice, or with who asks for it (contract, section 5)."""

from routstr.errors.base import RoutstrError
from routstr.errors.ecash import MintRateLimited, MintUnreachable
from routstr.errors.request import InvalidRequest, NotFound


class TopupAuthorizationRequired(RoutstrError):
    """A top-up needs the key: send it as `Authorization: Bearer` or as `api_key`."""

    status, type, code = 401, "invalid_request_error", "topup_authorization_required"


class TopupInvalidApiKeyFormat(InvalidRequest):
    """That is no API key."""

    code = "topup_invalid_api_key_format"


class TopupApiKeyNotFound(NotFound):
    """Key not found"""

    code = "topup_api_key_not_found"


class InvoiceNotFound(NotFound):
    """Invoice not found"""

    code = "invoice_not_found"


class LightningMintUnreachable(MintUnreachable):
    """No mint of this node gives an invoice for that amount now."""

    code = "lightning_mint_unreachable"


class LightningMintRateLimited(MintRateLimited):
    """The mints of this node are limiting requests for invoices."""

    code = "lightning_mint_rate_limited"
