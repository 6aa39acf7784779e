# OpenSSH, client and server: a command, much data, a wrong host key, a refused connection. The version says the canary.
needs='ssh ssh-keygen /usr/sbin/sshd'
serve() {
  local key
  for key in host user; do ssh-keygen -q -t ed25519 -N '' -C '' -f "$folder/$key"; done
  cp "$folder/user.pub" "$folder/authorized"
  printf '%s\n' "HostKey $folder/host" "AuthorizedKeysFile $folder/authorized" 'StrictModes no' 'UsePAM no' \
    "VersionAddendum $canary" 'PidFile none' "Port $port" >"$folder/conf"
  echo "them $(cat "$folder/host.pub")" >"$folder/known"
  on b mkdir -p /run/sshd
  b srv /usr/sbin/sshd -D -e -f "$folder/conf"
  wait_listen b "$port"
}
talk() {
  local options=(-F none -i "$folder/user" -p "$port" -o "UserKnownHostsFile=$folder/known" -o HostKeyAlias=them
    -o StrictHostKeyChecking=yes -o LogLevel=ERROR)
  a ssh "${options[@]}" root@10.9.0.2 'echo hello; exit 7'
  a ssh "${options[@]}" root@fd00::2 'echo hello'
  a ssh "${options[@]}" root@b 'seq 50000' | md5sum
  a ssh "${options[@]}" -o HostKeyAlias=others root@b true | sed 's/ED25519.*//'
  a ssh -F none -v -p "$port" -o "UserKnownHostsFile=$folder/known" -o HostKeyAlias=them root@b false 2>&1 | grep -o "$canary"
  a ssh "${options[@]}" -p 9 root@10.9.0.2 true
  a ssh "${options[@]}" -p 8999 root@b true
}
