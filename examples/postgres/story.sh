# The steps of README.md on two hosts of the lab: a is app1.example; b is db1.example, which runs strongSwan
# and no Latchkey; c is somebody else. (tests/lab/exec examples/postgres/story.sh)
set -u
example=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bin=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
as_postgres=(setpriv --reuid=postgres --regid=postgres --clear-groups)
as_user=(setpriv --reuid=nobody --regid=nogroup --clear-groups)
export PGPASSWORD=of-the-lab PGCONNECT_TIMEOUT=20
canary="canary-orders"
chmod 755 "$LAB"
cd / || fail "no root directory"

# configure HOST NAME FILE: strongSwan's files, as README.md says, and it is started.
configure() {
  on "$1" sh -ec 'cd /etc/swanctl
    install -m 600 "$1/pki/$2.key" private/ && install -m 644 "$1/pki/$2.crt" x509/ && install -m 644 "$1/pki/ca.crt" x509ca/
    install -m 600 "$3" conf.d/' sh "$LAB" "$2" "$3" || fail "no configuration for $1"
  ike_start "$1"
}
# psql_once ARG...: the user's psql, latched.
psql_once() {
  on a "${as_user[@]}" latchkey run -p "$example/client.toml" -- psql -h db1.example -U orders -At orders "$@"
}
# ask SQL: the long session's psql is asked; it must answer with the canary.
asked=0
answered() { [ "$(grep -c "^$canary-$asked\$" "$LAB/session.log")" = 1 ]; }
ask() {
  asked=$((asked + 1))
  echo "select item || '-' || $asked from orders;" >"$LAB/keys"
  retry 20 answered || fail "no answer: $(tail -n 3 "$LAB/session.log")"
}
child() { ike_sas a | awk '$1 == "db" && $3 == "INSTALLED" { print $2, $5 }'; }
sent_under() { ike_sas a | awk '$1 == "db" && $3 == "INSTALLED" { print $7 }'; }
over() { ! kill -0 "$1" 2>/dev/null; }

# --- the two machines ---
echo '10.9.0.1 app1.example
10.9.0.2 db1.example' >>/etc/hosts
"$example/certificates" "$LAB/pki" app1.example db1.example www1.example || fail "no certificates"
configure b db1.example "$example/server.conf"
configure a app1.example "$example/client.conf"

install -d -o postgres "$LAB/pg" && echo "$PGPASSWORD" >"$LAB/pg.password" &&
  on b "${as_postgres[@]}" "$bin/initdb" -D "$LAB/pg" --no-sync --locale=C.UTF-8 -A scram-sha-256 --pwfile="$LAB/pg.password" \
    >"$LAB/initdb.log" 2>&1 || fail "no database: $(tail -n 5 "$LAB/initdb.log")"
echo 'host orders orders 10.9.0.1/32 scram-sha-256' >>"$LAB/pg/pg_hba.conf"
bg b postgres "${as_postgres[@]}" "$bin/postgres" -D "$LAB/pg" -F -c listen_addresses='*' -c unix_socket_directories="$LAB/pg"
wait_listen b 5432
retry 20 grep -q 'ready to accept connections' "$LAB/postgres.log" || fail "PostgreSQL: $(tail -n 5 "$LAB/postgres.log")"
on b "$bin/psql" -h "$LAB/pg" -U postgres -q -v ON_ERROR_STOP=1 <<END || fail "no table"
create role orders login password '$PGPASSWORD';
create database orders owner orders;
\c orders
create table orders as select '$canary'::text as item;
grant select on orders to orders;
END
bg a broker latchkeyd
retry 20 grep -qs 'latchkeyd: ready' "$LAB/broker.log" || fail "no broker at a: $(cat "$LAB/broker.log")"
capture wire

# --- psql ---
expect_eq "no SA yet" "$(child)" ""
expect_eq "psql's answer" "$(psql_once -c 'select item from orders' 2>&1)" "$canary"
expect_eq "the SA was made for it, with" "$(child)" '70000 db1.example'
mkfifo -m 666 "$LAB/keys"
bg a session sh -c 'keys=$1; shift; exec "$@" <>"$keys" 2>&1' sh "$LAB/keys" \
  "${as_user[@]}" latchkey run -p "$example/client.toml" -- psql -h db1.example -U orders -At orders
ask
named() {
  on a latchkey list | grep -Eq \
    ' ESTABLISHED +tcp +10\.9\.0\.1:[0-9]+ +10\.9\.0\.2:5432 +db1\.example +esp/aes-gcm-16:256 +[^ ]*/psql '
}
retry 15 named || fail "latchkey list does not name the peer: $(on a latchkey list)"
echo "good: latchkey list names the peer"

# --- what comes and goes beneath it ---
before=$(sent_under)
on a swanctl --rekey --child db >/dev/null || fail "no new keys"
rekeyed() { [ "$(sent_under)" != "$before" ]; }
retry 20 rekeyed || fail "no new keys: $(ike_sas a)"
ask
echo "good: the session goes on under new keys"
ip -n a xfrm policy flush
ask
echo "good: and without an SPD"
expect_eq "until here no packet in clear" "$(non_esp wire a b) $(clear_octets wire $canary)" '0 0'
check "but ESP" [ "$(esp_packets wire a b)" -gt 30 ]

# --- another host of the same CA at the database's address ---
ike_stop b
on b sh -c 'rm /etc/swanctl/private/* /etc/swanctl/x509/*'
sed 's/db1\.example/www1.example/' "$example/server.conf" >"$LAB/server.conf"
configure b www1.example "$LAB/server.conf"
session=$(cat "$LAB/session.pid")
echo "select 'never';" >"$LAB/keys"
retry 90 over "$session" || fail "the session is still there: $(tail -n 3 "$LAB/session.log")"
wait "$session"
expect_eq "the session's end: psql's status for a lost connection" $? 2
expect_eq "nothing came from the other host" "$(grep -c never "$LAB/session.log")" 0
said=$(psql_once -c "select '$canary'" 2>&1)
expect_eq "a new psql does not connect (psql: status 2)" $? 2
echo "good: it says: $said"
on a latchkey why | tail -n 3

# --- and the database is back ---
on b sh -c 'rm /etc/swanctl/private/* /etc/swanctl/x509/* /etc/swanctl/conf.d/*'
ike_stop b
configure b db1.example "$example/server.conf"
expect_eq "psql's answer" "$(psql_once -c 'select item from orders' 2>&1)" "$canary"

# --- the whole of it ---
# What is looked for would be seen: c asks in clear, which PostgreSQL refuses.
before=$(clear_octets wire $canary)
if on c psql -h db1.example -U $canary orders >"$LAB/clear.log" 2>&1; then fail "c is let in"; fi
check "PostgreSQL refuses c" grep -q 'no pg_hba.conf entry' "$LAB/clear.log"
check "whose name is seen in clear" [ "$(clear_octets wire $canary)" -gt "$before" ]
expect_eq "no octet of app1's in clear" "$before" 0
# A connection that is no more is answered for by the SPD alone: resets without data.
expect_eq "nothing of TCP in clear but resets" \
  "$(tcpdump -n -r "$LAB/wire.pcap" 'tcp and host 10.9.0.1 and host 10.9.0.2 and tcp[13] & 4 = 0' 2>/dev/null | wc -l)" 0
