{% autoescape off %}#!/bin/sh
# Installs the Sentinella agent and enrols this server; the one-time token comes on standard input.
# Everything that it fetches is checked against the sums below before it is used.
set -eu

main() {
  SERVER='{{ server }}'
  BASE='{{ base }}'

  [ "$(id -u)" -eq 0 ] || fail "run this as root"
  # Python takes modules from where it is started: not from wherever root stood, say in /tmp.
  cd /
  umask 022
  for tool in curl sha256sum; do
    command -v "$tool" >/dev/null 2>&1 || fail "needs $tool"
  done
  if [ -t 0 ]; then printf 'Token of “Add a server”: ' >&2; fi
  TOKEN=''
  read -r TOKEN || true
  [ -n "$TOKEN" ] || fail "give the token of “Add a server” on standard input; nothing was changed"

  TEMP=$(mktemp -d)
  chmod 755 "$TEMP"
  trap 'rm -rf "$TEMP"' EXIT
  choose
  say "fetching $NAME from $SERVER"
  curl -fsSL -o "$TEMP/$NAME" "$BASE$NAME" || fail "$BASE$NAME could not be fetched; the token is not spent"
  printf '%s  %s\n' "$SHA256" "$TEMP/$NAME" | sha256sum -c --status ||
    fail "$NAME is not what $SERVER announced: damaged or tampered with. Nothing was installed; the token is not spent"
  say "installing"
  "install_$KIND"

  say "enrolling this server"
  printf '%s\n' "$TOKEN" | sentinella enrol --server "$SERVER" --token -
  if [ -d /run/systemd/system ]; then
    systemctl enable --quiet sentinella.service
    systemctl restart sentinella.service
    say "done; this server appears within a minute. See: sentinella status"
  else
    say "done. There is no systemd here: start it with your own supervisor, as the user sentinella: sentinella run"
  fi
}

say() { printf '%s\n' "sentinella: $*"; }
fail() { printf '%s\n' "sentinella: $*" >&2; exit 1; }

# A package of the system's own kind if one is offered for this machine, else the wheel.
choose() {
  machine=$(uname -m)
  system=''
  if command -v dpkg >/dev/null 2>&1; then system=deb; elif command -v rpm >/dev/null 2>&1; then system=rpm; fi
  case "$system $machine" in
{% for offer in offers %}{% if offer.kind != "wheel" %}    '{{ offer.kind }} {{ offer.machine }}') KIND={{ offer.kind }} NAME='{{ offer.name }}' SHA256='{{ offer.sha256 }}' ;;
{% endif %}{% endfor %}    *) {% for offer in offers %}{% if offer.kind == "wheel" %}KIND=wheel NAME='{{ offer.name }}' SHA256='{{ offer.sha256 }}'{% endif %}{% endfor %} ;;
  esac
}

install_deb() {
  if command -v apt-get >/dev/null 2>&1; then
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$TEMP/$NAME" >/dev/null
  else
    dpkg --install "$TEMP/$NAME"
  fi
}

install_rpm() {
  for tool in dnf yum; do
    if command -v "$tool" >/dev/null 2>&1; then
      "$tool" install -y -q --nogpgcheck "$TEMP/$NAME"
      return
    fi
  done
  rpm --upgrade "$TEMP/$NAME"
}

install_wheel() {
  python=''
  for candidate in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9 python3.8; do
    if command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 8))' >/dev/null 2>&1; then
      python=$candidate
      break
    fi
  done
  [ -n "$python" ] || fail "needs Python 3.8 or newer with venv (Debian, Ubuntu: apt install python3-venv)"
  home=/usr/lib/sentinella
  "$python" -m venv --system-site-packages "$home/venv"
  "$home/venv/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade "$TEMP/$NAME" ||
    fail "pip could not install it; what it needs (click, psutil) comes from PyPI or from the packages python3-click and python3-psutil"
  ln -sf "$home/venv/bin/sentinella" /usr/bin/sentinella
  cat > "$home/join-groups" <<'SENTINELLA_END'
{{ join_groups }}SENTINELLA_END
  cat > "$home/users" <<'SENTINELLA_END'
{{ users }}SENTINELLA_END
  chmod 755 "$home/join-groups" "$home/users"
  "$home/users"
  if [ -d /run/systemd/system ]; then
    cat > /etc/systemd/system/sentinella.service <<'SENTINELLA_END'
{{ unit }}SENTINELLA_END
    systemctl daemon-reload
  fi
}

main
{% endautoescape %}
