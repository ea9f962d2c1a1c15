#!/bin/sh
# Run once by the postgres image on an empty volume: the role owns its database and nothing else.
set -eu
psql --username "$POSTGRES_USER" --dbname postgres --set ON_ERROR_STOP=1 \
	--set password="$SENTINELLA_PASSWORD" <<'SQL'
CREATE ROLE sentinella LOGIN NOSUPERUSER NOBYPASSRLS PASSWORD :'password';
CREATE DATABASE sentinella OWNER sentinella;
SQL
