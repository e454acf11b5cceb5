"""What the pure protocol refuses when nobody's token is at fault.

A malformed token is `routstr.errors.InvalidToken`: the sender must hear about it. The classes here
are for values of our own, of a mint or of a payment request; whoever called decides what they mean.
Messages never hold a secret, a scalar or a token.
"""


class EcashError(ValueError):
    """A value breaks a rule of the Cashu protocol."""


class InvalidPoint(EcashError):
    """Not a compressed secp256k1 point, or a sum at infinity."""


class InvalidScalar(EcashError):
    """Not a scalar between 1 and the group order."""


class InvalidMnemonic(EcashError):
    """Not a BIP-39 mnemonic, or no entropy for one."""


class InvalidSecret(EcashError):
    """A secret looks like a NUT-10 secret and is not exactly one."""


class InvalidPaymentRequest(EcashError):
    """A payment request (NUT-18, NUT-26) cannot be read or written."""


class UnsupportedKeyset(EcashError):
    """A keyset id has a version we do not speak, or is no id at all."""


class InvalidCounter(EcashError):
    """A NUT-13 counter is outside what its derivation can take."""


class InvalidAmount(EcashError):
    """An amount is negative, too large, or cannot be made of the keyset's denominations."""


class BadSignature(EcashError):
    """The mint's answer is not the signatures we asked for; nothing of it may be used."""
