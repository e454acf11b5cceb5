"""The real mint: nutshell from `.venv-mint`, whose Lightning backend pays every invoice by itself.

`python -m demo.mint --port N` runs one in the foreground until it is interrupted.
"""

import argparse
import contextlib
import signal
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from demo.process import ROOT, Server

PROGRAM: Final = ROOT / ".venv-mint" / "bin" / "mint"

# The second index of a derivation path names the unit.
DERIVATION_PATHS: Final = {"sat": "m/0'/0'/0'", "msat": "m/0'/1'/0'"}


class RealMint(Server):
    """One mint with its own directory, seed and keysets; the money in it is make-believe."""

    ready_path = "/v1/keysets"

    def __init__(
        self,
        directory: Path,
        *,
        fee_ppk: int = 0,
        units: Sequence[str] = ("sat",),
        seed: str = "test-only-seed",
        extra: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(directory)
        assert PROGRAM.exists(), "make .venv-mint/.stamp sets up the mint"
        assert units
        assert set(units) <= set(DERIVATION_PATHS), f"units are {set(DERIVATION_PATHS)}"
        self.fee_ppk = fee_ppk
        self.units = tuple(units)
        self._seed = seed
        self._extra = dict(extra or {})

    def change(self, extra: Mapping[str, str]) -> None:
        """Other settings of nutshell's, from the next start on."""
        self._extra.update(extra)

    def argv(self) -> Sequence[str]:
        return [str(PROGRAM)]

    def environment(self) -> Mapping[str, str]:
        home = str(self.directory)
        first, *others = self.units
        paths = ",".join(f'"{DERIVATION_PATHS[unit]}"' for unit in others)
        return {
            "PATH": f"{PROGRAM.parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": home,
            "LC_ALL": "C.UTF-8",
            "CASHU_DIR": home,
            "MINT_PRIVATE_KEY": self._seed,
            "MINT_DATABASE": f"{home}/mint",
            "MINT_AUTH_DATABASE": f"{home}/auth",
            "MINT_LISTEN_HOST": "127.0.0.1",
            "MINT_LISTEN_PORT": str(self.port),
            "MINT_RATE_LIMIT": "FALSE",
            "MINT_INPUT_FEE_PPK": str(self.fee_ppk),
            "MINT_DERIVATION_PATH": DERIVATION_PATHS[first],
            "MINT_DERIVATION_PATH_LIST": f"[{paths}]",
            **{f"MINT_BACKEND_BOLT11_{unit.upper()}": "FakeWallet" for unit in self.units},
            "FAKEWALLET_DELAY_INCOMING_PAYMENT": "0",
            "FAKEWALLET_DELAY_OUTGOING_PAYMENT": "0",
            **self._extra,
        }


def main() -> None:
    """Run one mint in an empty directory."""
    parser = argparse.ArgumentParser(prog="demo.mint", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--fee-ppk", type=int, default=0, help="fee per thousand inputs, in ppk")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mint-") as directory:
        mint = RealMint(Path(directory), fee_ppk=arguments.fee_ppk)
        mint.port = arguments.port
        with mint:
            print(mint.url, flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()


if __name__ == "__main__":
    main()
