# PostgreSQL and psql: a query, much data, a session with children of the server in it, a refused connection.
needs='psql setpriv'
postgres_of() { echo /usr/lib/postgresql/*/bin/"$1"; }
serve() {
  # Made once, by the first mode: that takes longest.
  if [ ! -d "$LAB/postgres" ]; then
    mkdir "$LAB/postgres" && chown postgres: "$LAB/postgres"
    setpriv --reuid=postgres --regid=postgres --clear-groups "$(postgres_of initdb)" -D "$LAB/postgres/data" -A trust --no-sync >"$folder/initdb" 2>&1
    printf 'host all all all trust\n' >>"$LAB/postgres/data/pg_hba.conf"
  fi
  b srv setpriv --reuid=postgres --regid=postgres --clear-groups "$(postgres_of postgres)" -D "$LAB/postgres/data" -p "$port" \
    -c listen_addresses='*' -c unix_socket_directories= -c fsync=off
  wait_listen b "$port"
}
talk() {
  local sql=(psql -X -At -U postgres -p "$port")
  retry 30 on a "${client_under[@]}" "${sql[@]}" -h 10.9.0.2 -c 'select 1' >/dev/null 2>&1
  a "${sql[@]}" -h 10.9.0.2 -c "select '$canary'"
  a "${sql[@]}" -h fd00::2 -c "select '$canary', inet_server_addr()"
  a "${sql[@]}" -h b -c 'select repeat(md5(n::text), 10) from generate_series(1, 2000) n' | md5sum
  a "${sql[@]}" -h 10.9.0.2 -c 'set max_parallel_workers_per_gather = 2' -c 'select sum(n) from generate_series(1, 100000) n' -c 'select 1/0'
  a "${sql[@]}" -h 10.9.0.2 -d postgres -c 'copy (select n from generate_series(1, 50000) n) to stdout' | md5sum
  a "${sql[@]}" -h 10.9.0.2 -p 9 -c 'select 1'
}
