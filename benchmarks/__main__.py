"""Runs the benchmarks that are named, or all of them."""

from __future__ import annotations

import argparse
import os
import sys

BENCHMARKS = ("agent", "alerts", "ingest", "latency", "rules", "tenants")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description="Measure side by side.")
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], metavar="NAME")
    names = parser.parse_args().names or BENCHMARKS
    if "DATABASE_URL" not in os.environ:
        print("Run it by `make bench`, which brings a PostgreSQL of its own.", file=sys.stderr)
        return 2
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sentinel_site.settings")
    os.environ["LOG_LEVEL"] = "ERROR"
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate_schemas", shared=True, interactive=False, verbosity=0)
    for name in names:
        __import__(f"benchmarks.{name}", fromlist=["run"]).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
