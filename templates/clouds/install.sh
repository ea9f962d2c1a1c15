{% autoescape off %}#!/bin/sh
# Installs the Sentinella agent as a systemd service and enrols this server.
#   curl -fsSL {{ server }}/install | sudo sh -s -- TOKEN
set -eu

SERVER='{{ server }}'
WHEEL_URL='{{ wheel_url }}'
WHEEL='{{ wheel_name }}'
SHA256='{{ sha256 }}'
HOME_DIR=/opt/sentinella
CONFIG=/etc/sentinella/agent.toml
STATE=/var/lib/sentinella

say() { printf '%s\n' "sentinella: $*"; }
fail() { printf '%s\n' "sentinella: $*" >&2; exit 1; }

[ "$#" -eq 1 ] || fail "give the token of “Add a server” as the only argument"
[ "$(id -u)" -eq 0 ] || fail "run this as root"
[ -d /run/systemd/system ] || fail "this server does not run systemd; docs/agent.md says how to run the agent by hand. The token is not spent."
command -v curl >/dev/null 2>&1 || fail "needs curl"

PYTHON=''
for candidate in python3 python3.13 python3.12 python3.11 python3.10 python3.9 python3.8; do
  if command -v "$candidate" >/dev/null 2>&1 &&
    "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 8))' >/dev/null 2>&1; then
    PYTHON=$candidate
    break
  fi
done
[ -n "$PYTHON" ] || fail "needs Python 3.8 or newer with venv (Debian, Ubuntu: apt install python3-venv)"

TEMP=$(mktemp -d)
trap 'rm -rf "$TEMP"' EXIT
say "fetching the agent from $SERVER"
curl -fsSL -o "$TEMP/$WHEEL" "$WHEEL_URL"
printf '%s  %s\n' "$SHA256" "$TEMP/$WHEEL" | sha256sum -c - >/dev/null || fail "the download is damaged; try again"

say "installing into $HOME_DIR"
"$PYTHON" -m venv --system-site-packages "$HOME_DIR"
"$HOME_DIR/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade "$TEMP/$WHEEL" ||
  fail "pip could not install it; psutil comes from PyPI or from the package python3-psutil"
ln -sf "$HOME_DIR/bin/sentinella" /usr/local/bin/sentinella

say "enrolling this server"
mkdir -p "$(dirname "$CONFIG")" "$STATE"
chmod 750 "$(dirname "$CONFIG")" "$STATE"
"$HOME_DIR/bin/sentinella" enrol --config "$CONFIG" --server "$SERVER" --token "$1"

cat > /etc/systemd/system/sentinella.service <<'UNIT'
[Unit]
Description=Sentinella agent
Wants=network-online.target
After=network-online.target

[Service]
ExecStart=/opt/sentinella/bin/sentinella run --config /etc/sentinella/agent.toml
Restart=always
RestartSec=5
Nice=10
MemoryMax=128M
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
ReadWritePaths=/var/lib/sentinella

[Install]
WantedBy=multi-user.target
UNIT
systemctl daemon-reload
systemctl enable --quiet sentinella.service
systemctl restart sentinella.service
say "done; this server appears within a minute. See: sentinella status"
{% endautoescape %}
