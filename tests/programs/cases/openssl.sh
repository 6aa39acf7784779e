# TLS inside: openssl's s_server and s_client, which read through libssl.
needs=openssl
serve() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=nobody -days 2 \
    -keyout "$folder/key" -out "$folder/cert" 2>/dev/null
  b srv openssl s_server -quiet -rev -key "$folder/key" -cert "$folder/cert" -accept "$port"
  wait_listen b "$port"
}
talk() {
  local reversed
  reversed=$(rev <<<"$canary")
  : >"$folder/answer"
  for address in 10.9.0.2 '[fd00::2]'; do
    # The answer is there before the client, at the end of its input, closes.
    { echo "$reversed"; retry 20 grep -q "$canary" "$folder/answer"; } |
      a openssl s_client -quiet -no_ign_eof -connect "$address:$port" >"$folder/answer" 2>&1
    grep -E "$canary|^status" "$folder/answer"
    : >"$folder/answer"
  done
  a openssl s_client -connect 10.9.0.2:9 </dev/null | grep -oE 'Connection refused|connect:errno=.*|^status.*' | sort -u
}
