# perl's IO::Socket and raw socket calls, a server that forks, exec with an inherited socket.
needs=perl
serve() {
  cat >"$folder/server.pl" <<'END'
use strict; use IO::Socket::INET;
$SIG{CHLD} = 'IGNORE';
my $server = IO::Socket::INET->new(LocalAddr => '0.0.0.0', LocalPort => $ARGV[0], Listen => 20, ReuseAddr => 1) or die "listen: $!";
while (my $client = $server->accept) {
  next if fork;
  my $line = <$client>;
  if ($line =~ /^exec/) {
    print $client "go\n"; $client->flush;
    open STDIN, '<&', $client; open STDOUT, '>&', $client;
    exec '/bin/sh', '-c', 'read line; echo "exec $line"';
  }
  print $client 'perl ', $line;
  exit 0;
}
END
  b srv perl "$folder/server.pl" "$port"
  wait_listen b "$port"
}
talk() {
  cat >"$folder/client.pl" <<'END'
use strict; use Socket; use IO::Socket::INET;
my ($port, $text) = @ARGV;
$| = 1;
for my $word ('', "exec\n") {
  my $s = IO::Socket::INET->new(PeerAddr => '10.9.0.2', PeerPort => $port, Timeout => 10) or die "connect: $!";
  if ($word) { print $s $word; print scalar <$s>; }
  print $s "$text\n";
  print scalar <$s>;
  print 'end ', defined(scalar <$s>) ? 'no' : 'yes', "\n";
}
socket(my $raw, PF_INET, SOCK_STREAM, 0) or die;
connect($raw, sockaddr_in($port, inet_aton('10.9.0.2'))) or die "connect: $!";
if (!fork) { syswrite $raw, "$text from the child\n"; exit 0; }
wait;
sysread $raw, my $answer, 1000;
print $answer;
close $raw;
socket($raw, PF_INET, SOCK_STREAM, 0) or die;
print connect($raw, sockaddr_in(9, inet_aton('10.9.0.2'))) ? 'connected' : $! + 0, " $!\n";
exit 7;
END
  a perl "$folder/client.pl" "$port" "$canary"
}
