#!/usr/bin/env python3
"""Django's command line for this project; `up` starts the whole product on this machine."""

import os
import sys


def main() -> None:
    if sys.argv[1:2] == ["up"]:  # before there are settings: only it knows where the database is
        from sentinel_site import up

        sys.exit(up.main(sys.argv[2:]))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sentinel_site.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
