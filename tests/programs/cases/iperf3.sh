# iperf3: its control connection (JSON that has the canary) beside one and four of data, both ways, and datagrams.
needs=iperf3
serve() {
  b srv iperf3 -s -p "$port"
  wait_listen b "$port"
}
measured() { # measured OPTION...: what does not differ from run to run
  a iperf3 -p "$port" -J --extra-data "$canary" "$@" | grep -E '"(extra_data|num_streams|bytes|protocol|reverse|version)":|status|error' |
    grep -vE '"bytes":' | tr -d '\t ,' | sort | uniq
}
talk() {
  measured -c 10.9.0.2 -n 400K
  measured -c fd00::2 -n 400K -R
  measured -c b -n 400K -P 4
  measured -c 10.9.0.2 -u -b 4M -n 40K
  a iperf3 -c 10.9.0.2 -p 9
}
