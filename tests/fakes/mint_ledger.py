"""The books of the model mint: keysets with real keys, what it signed, what was spent.

Pure and synchronous; `tests.fakes.mint` puts HTTP around it. Its refusals carry nutshell's codes.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from routstr.ecash import bdhke, p2pk
from routstr.ecash.amounts import split
from routstr.ecash.errors import EcashError
from routstr.ecash.keyset import fee, keyset_id
from routstr.ecash.proof import Dleq, Keyset, Proof
from routstr.ecash.secret import PlainSecret, parse_secret

JsonObject = dict[str, object]


class Refused(Exception):
    """The mint's 400 with a code."""

    def __init__(self, code: int, detail: str = "refused") -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@dataclass(slots=True)
class MintKeyset:
    """A keyset with its private keys."""

    keyset: Keyset
    private_keys: Mapping[int, str] = field(repr=False)
    active: bool = True


class MintLedger:
    """What a mint knows; amounts in each keyset's unit."""

    def __init__(self, *, fee_ppk: int, units: Sequence[str], version: str, orders: int) -> None:
        self.keysets: dict[str, MintKeyset] = {}
        self.signatures: dict[str, JsonObject] = {}  # by B_
        self.spent: set[str] = set()  # Ys
        self.pending: set[str] = set()  # Ys
        self.forgotten: set[str] = set()  # Ys of proofs whose signature it does not know any more
        self.signed: Counter[str] = Counter()  # by unit
        self.redeemed: Counter[str] = Counter()  # by unit, fees included
        self._version = version
        self._orders = orders
        self._draws = 0
        for unit in units:
            self.rotate(unit, fee_ppk=fee_ppk)

    def rotate(self, unit: str, *, fee_ppk: int, final_expiry: int | None = None) -> str:
        """A new active keyset for the unit; older ones become inactive."""
        for each in self.keysets.values():
            if each.keyset.unit == unit:
                each.active = False
        private = {1 << order: self.draw() for order in range(self._orders)}
        keys = {amount: bdhke.public_key(key) for amount, key in private.items()}
        new_id = keyset_id(
            keys,
            unit=unit,
            input_fee_ppk=fee_ppk,
            final_expiry=final_expiry,
            version=self._version,
        )
        keyset = Keyset(
            id=new_id,
            unit=unit,
            active=True,
            input_fee_ppk=fee_ppk,
            final_expiry=final_expiry,
            keys=keys,
        )
        self.keysets[new_id] = MintKeyset(keyset, private)
        return new_id

    def active(self, unit: str) -> MintKeyset:
        """The unit's active keyset."""
        return next(k for k in self.keysets.values() if k.active and k.keyset.unit == unit)

    def draw(self) -> str:
        """The next of an endless row of different scalars, the same in every run."""
        self._draws += 1
        return hashlib.sha256(f"model mint {self._draws}".encode()).hexdigest()

    def issue(
        self, amount: int, unit: str, *, lock_to: str | None, tags: Sequence[Sequence[str]]
    ) -> tuple[Proof, ...]:
        """Proofs out of nothing, with DLEQ; locked to a public key if one is given (NUT-11)."""
        mint_keyset = self.active(unit)
        proofs: list[Proof] = []
        for part in split(amount):
            secret = self.draw()
            if lock_to is not None:
                secret = p2pk.lock_secret(lock_to, nonce=secret, tags=tags)
            r = self.draw()
            b_ = bdhke.blind(secret, r)
            private_key = mint_keyset.private_keys[part]
            dleq = bdhke.dleq_prove(b_, private_key, bdhke.dleq_nonce(b_, private_key))
            c = bdhke.unblind(bdhke.sign_blinded(b_, private_key), r, mint_keyset.keyset.keys[part])
            proofs.append(
                Proof(
                    amount=part,
                    keyset_id=mint_keyset.keyset.id,
                    secret=secret,
                    c=c,
                    dleq=Dleq(e=dleq.e, s=dleq.s, r=r),
                )
            )
        self.signed[unit] += amount
        return tuple(proofs)

    def swap(self, request: JsonObject) -> JsonObject:
        """POST /v1/swap: all checks, then all effects."""
        inputs, outputs = _objects(request, "inputs"), _objects(request, "outputs")
        ys = self.check_inputs(inputs)
        units = {self._keyset(each, 12001).keyset.unit for each in (*inputs, *outputs)}
        self.check_outputs(outputs)
        if len(units) != 1:
            raise Refused(11010, "inputs and outputs of several units")
        if _total(inputs) - self.fee_of(inputs) != _total(outputs):
            raise Refused(11005, "unbalanced")
        self.spend(ys, inputs)
        return {"signatures": [self.sign(each) for each in outputs]}

    def restore(self, request: JsonObject) -> JsonObject:
        """POST /v1/restore: what was signed, with an echo of its outputs."""
        found = [o for o in _objects(request, "outputs") if str(o.get("B_")) in self.signatures]
        return {"outputs": found, "signatures": [self.signatures[str(o["B_"])] for o in found]}

    def check_state(self, request: JsonObject) -> JsonObject:
        """POST /v1/checkstate."""
        ys = request.get("Ys")
        assert isinstance(ys, list)
        states = [{"Y": y, "state": self.state(str(y)), "witness": None} for y in ys]
        return {"states": states}

    def state(self, y: str) -> str:
        """UNSPENT, also for what never existed; PENDING; SPENT."""
        if y in self.spent:
            return "SPENT"
        return "PENDING" if y in self.pending else "UNSPENT"

    def check_inputs(self, inputs: Sequence[JsonObject]) -> list[str]:
        """The inputs' Ys, if all are valid, different, unspent and unlocked."""
        ys = [self._check_input(each) for each in inputs]
        if len(set(ys)) != len(ys):
            raise Refused(11007, "duplicate inputs")
        if self.spent & set(ys):
            raise Refused(11001, "Token already spent.")
        if self.pending & set(ys):
            raise Refused(11002, "proofs are pending.")
        return ys

    def check_outputs(self, outputs: Sequence[JsonObject]) -> None:
        """Whether these may be signed: known active keyset, its amounts, new and different."""
        for each in outputs:
            mint_keyset = self._keyset(each, 12001)
            if not mint_keyset.active:
                raise Refused(12002, "keyset is inactive")
            if each.get("amount") not in mint_keyset.private_keys:
                raise Refused(11006, "invalid amount")
            if not bdhke.is_point(str(each.get("B_"))):
                raise Refused(0, "invalid point")
        names = [str(each["B_"]) for each in outputs]
        if len(set(names)) != len(names):
            raise Refused(11008, "duplicate outputs")
        if self.signatures.keys() & set(names):
            raise Refused(11003, "outputs have already been signed before.")

    def fee_of(self, inputs: Iterable[JsonObject]) -> int:
        """The fee of these inputs in their unit (NUT-02)."""
        return fee(self._keyset(each, 12001).keyset.input_fee_ppk for each in inputs)

    def spend(self, ys: Iterable[str], inputs: Iterable[JsonObject]) -> None:
        """Mark inputs as spent, for ever."""
        self.spent.update(ys)
        for each in inputs:
            self.redeemed[self._keyset(each, 12001).keyset.unit] += int(str(each["amount"]))

    def sign(self, output: JsonObject) -> JsonObject:
        """A blind signature with its DLEQ, remembered for restore."""
        mint_keyset, b_ = self._keyset(output, 12001), str(output["B_"])
        amount = int(str(output["amount"]))
        private_key = mint_keyset.private_keys[amount]
        dleq = bdhke.dleq_prove(b_, private_key, bdhke.dleq_nonce(b_, private_key))
        signature: JsonObject = {
            "id": mint_keyset.keyset.id,
            "amount": amount,
            "C_": bdhke.sign_blinded(b_, private_key),
            "dleq": {"e": dleq.e, "s": dleq.s},
        }
        self.signatures[b_] = signature
        self.signed[mint_keyset.keyset.unit] += amount
        return signature

    def _check_input(self, proof: JsonObject) -> str:
        mint_keyset = self._keyset(proof, 0)
        secret = str(proof.get("secret"))
        private_key = mint_keyset.private_keys.get(int(str(proof.get("amount"))))
        if private_key is None or not bdhke.verify(secret, str(proof.get("C")), private_key):
            raise Refused(10001, "proofs could not be verified")
        if bdhke.y_of(secret) in self.forgotten:
            raise Refused(10001, "proofs could not be verified")
        try:
            condition = parse_secret(secret)
            lock = None if isinstance(condition, PlainSecret) else p2pk.lock_of(condition)
        except EcashError as error:
            raise Refused(11000, "unsupported spending condition") from error
        if lock is not None:
            witness = str(proof.get("witness") or "")
            if not p2pk.verify_secret(secret, witness, lock.key):
                raise Refused(11000, "signature is not valid")
        return bdhke.y_of(secret)

    def _keyset(self, entry: JsonObject, code: int) -> MintKeyset:
        mint_keyset = self.keysets.get(str(entry.get("id")))
        if mint_keyset is None:
            raise Refused(code, "keyset is unknown")
        return mint_keyset


def _objects(request: JsonObject, name: str) -> list[JsonObject]:
    entries = request[name]
    assert isinstance(entries, list)
    return entries


def _total(entries: Iterable[JsonObject]) -> int:
    return sum(int(str(each["amount"])) for each in entries)
