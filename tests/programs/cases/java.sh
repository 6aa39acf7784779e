# java: its HTTP server, a client of URLConnection, one of NIO with a selector, a refused connection.
needs='java javac'
serve() {
  if [ ! -d "$LAB/java" ]; then
    mkdir "$LAB/java"
    cat >"$LAB/java/Server.java" <<'JAVA'
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;

class Server {
  public static void main(String[] arguments) throws Exception {
    HttpServer server = HttpServer.create(new InetSocketAddress(Integer.parseInt(arguments[0])), 10);
    byte[] text = (arguments[1] + "\n").getBytes();
    server.createContext("/", exchange -> {
      exchange.sendResponseHeaders(200, text.length);
      exchange.getResponseBody().write(text);
      exchange.close();
    });
    server.start();
  }
}
JAVA
    cat >"$LAB/java/Client.java" <<'JAVA'
import java.net.InetSocketAddress;
import java.net.URL;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.SocketChannel;

class Client {
  static String get(String host, int port) throws Exception {
    try (var input = new URL("http://" + host + ":" + port + "/").openStream()) {
      return new String(input.readAllBytes()).trim();
    } catch (java.io.IOException error) {
      return error.getClass().getName();
    }
  }

  static String select(String host, int port) throws Exception {
    try (Selector selector = Selector.open(); SocketChannel channel = SocketChannel.open()) {
      channel.configureBlocking(false);
      channel.connect(new InetSocketAddress(host, port));
      channel.register(selector, SelectionKey.OP_CONNECT);
      selector.select(20000);
      channel.finishConnect();
      channel.keyFor(selector).interestOps(SelectionKey.OP_READ);
      channel.write(ByteBuffer.wrap("GET / HTTP/1.0\r\n\r\n".getBytes()));
      ByteBuffer data = ByteBuffer.allocate(4096);
      while (channel.read(data) >= 0) selector.select(20000);
      return new String(data.array(), 0, data.position()).replaceAll("(?s).*\r\n\r\n", "").trim();
    } catch (java.io.IOException error) {
      return error.getClass().getName();
    }
  }

  public static void main(String[] arguments) throws Exception {
    int port = Integer.parseInt(arguments[0]);
    for (String host : new String[] {"10.9.0.2", "[fd00::2]", "b"}) System.out.println(get(host, port));
    System.out.println(select("10.9.0.2", port));
    for (int nobody : new int[] {9, 8999}) System.out.println(get("10.9.0.2", nobody) + " " + select("10.9.0.2", nobody));
  }
}
JAVA
    javac -d "$LAB/java" "$LAB"/java/*.java
  fi
  b srv java -Xmx64m -cp "$LAB/java" Server "$port" "$canary"
  wait_listen b "$port"
}
talk() {
  a java -Xmx64m -cp "$LAB/java" Client "$port"
}
