# dnsmasq, asked by dig over TCP (the record is the canary) and over UDP, which no rule names; a refused connection.
needs='dnsmasq dig'
serve() {
  b srv dnsmasq -k -p "$port" -u root -x '' -C /dev/null --no-resolv --no-hosts --txt-record="them.lab,$canary" \
    --address=/host.lab/192.0.2.7
  wait_listen b "$port"
}
talk() {
  a dig +tcp +short -p "$port" @10.9.0.2 txt them.lab
  a dig +tcp +short -p "$port" @fd00::2 txt them.lab them.lab a host.lab
  a dig +keepopen +tcp +short -p "$port" @10.9.0.2 a host.lab txt them.lab
  a dig +notcp +short -p "$port" @10.9.0.2 a host.lab
  a dig +notcp +short -p "$port" @fd00::2 a host.lab
  a dig +tcp +time=2 +tries=1 -p 9 @10.9.0.2 txt them.lab | sed 's/ id .*//'
}
