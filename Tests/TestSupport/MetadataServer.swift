import Foundation
import HostSystem

/// The EC2 metadata service as a process of its own on loopback, strict about session tokens, with the faults that need real
/// sockets and real time. What it was asked, it writes to a file.
public final class MetadataServer: Sendable {
    /// One at a time: `hang-put` never answers a request for a token, `endless` sends user-data without end, `short-token`
    /// grants tokens for one second whatever is asked, `dying` answers the first `dying=N` requests and then closes its port.
    public static let program = #"""
        import http.server, json, secrets, sys, time, os
        port, folder, fault = int(sys.argv[1]), sys.argv[2], sys.argv[3]
        tokens, answered = {}, 0
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'
            def log_message(self, *_): pass
            def note(self):
                global answered
                answered += 1
                with open(folder + '/requests', 'a') as file:
                    file.write(self.command + ' ' + self.path + '\n')
                if fault.startswith('dying=') and answered > int(fault[6:]): os._exit(0)
            def reply(self, status, body=b'', headers=()):
                self.send_response(status)
                self.send_header('Content-Length', str(len(body)))
                self.send_header('Connection', 'close')
                for name, value in headers: self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
            def do_PUT(self):
                self.note()
                if fault == 'hang-put': time.sleep(600)
                if self.path != '/latest/api/token' or 'X-Forwarded-For' in self.headers: return self.reply(403)
                try: seconds = int(self.headers['X-aws-ec2-metadata-token-ttl-seconds'])
                except (TypeError, ValueError): return self.reply(400)
                if not 1 <= seconds <= 21600: return self.reply(400)
                token = secrets.token_urlsafe(40) + '=='
                tokens[token] = time.monotonic() + (1 if fault == 'short-token' else seconds)
                self.reply(200, token.encode(), [('X-Aws-Ec2-Metadata-Token-Ttl-Seconds', str(seconds))])
            def do_GET(self):
                self.note()
                until = tokens.get(self.headers.get('X-aws-ec2-metadata-token'))
                if until is None or time.monotonic() > until: return self.reply(401)
                if fault == 'endless' and self.path == '/latest/user-data':
                    self.send_response(200)
                    self.send_header('Transfer-Encoding', 'chunked')
                    self.end_headers()
                    while True: self.wfile.write(b'1000\r\n' + b'#' * 4096 + b'\r\n')
                with open(folder + '/items.json') as file: items = json.load(file)
                body = items.get(self.path)
                if body is None: return self.reply(404, b'<html>404 - Not Found</html>')
                self.reply(200, body.encode())
        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            def handle_error(self, *_): pass
        Server(('127.0.0.1', port), Handler).serve_forever()
        """#

    private let scratch: ScratchDirectory
    private let server: LoopbackServer
    public var url: String { server.url }

    public init(
        items: [String: String] = ScriptedMetadata.front, fault: String = "none", port: Int = LoopbackServer.freePort()
    ) throws {
        scratch = try ScratchDirectory()
        try scratch.write("items.json", Array(try JSONEncoder().encode(items)))
        server = try LoopbackServer(
            ["python3", "-c", Self.program, "{port}", scratch.path, fault], port: port)
    }

    /// `METHOD path`, in order.
    public var requests: [String] {
        (try? FileReading.text(scratch("requests"), limit: 4 << 20))?.split(separator: "\n").map(String.init) ?? []
    }

    public func stop() { server.stop() }
}

/// A port that accepts no connection and refuses none: its queue of waiting connections is full.
public final class BlackHole: Sendable {
    private let listener: CInt
    private let waiting: [CInt]
    public let port: Int

    public init() {
        let port = LoopbackServer.freePort()
        var address = LoopbackServer.loopback(port)
        let length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var waiting: [CInt] = []
        withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { raw in
                _ = bind(listener, raw, length)
                listen(listener, 0)
                for _ in 0..<4 {
                    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue), 0)
                    _ = connect(descriptor, raw, length)
                    waiting.append(descriptor)
                }
            }
        }
        self.port = port
        self.listener = listener
        self.waiting = waiting
    }

    public var url: String { "http://127.0.0.1:\(port)" }

    deinit {
        for descriptor in waiting { close(descriptor) }
        close(listener)
    }
}
