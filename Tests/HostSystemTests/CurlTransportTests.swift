import Foundation
import HostSystem
import TestSupport
import Testing

@Suite struct CurlTransportTests {
    let transport = CurlTransport(environment: [:])

    func failure(_ request: HTTPRequest, _ transport: CurlTransport? = nil) throws -> HTTPFailure {
        try #require(throws: HTTPFailure.self) { try (transport ?? self.transport).perform(request, stop: .bounded()) }
    }

    @Test("status, headers and body come back as they are; the connection is kept")
    func answer() throws {
        let server = try FaultServer([
            "/a": .init(steps: [#"{"status":404,"body":"no","headers":{"X-Told":"  one two "}}"#]),
            "/b": .init(steps: [#"{"status":301,"headers":{"Location":"/a"}}"#]),
        ])
        let response = try transport.perform(HTTPRequest("GET", server.url + "/a"), stop: .bounded())
        #expect(response.status == 404)
        #expect(response.text == "no")
        #expect(response.header("x-told") == "one two")
        #expect(try transport.perform(HTTPRequest("GET", server.url + "/b"), stop: .bounded()).status == 301)
        #expect(try server.requests().filter { $0.target == "/a" }.count == 1)
    }

    @Test("exactly the caller's headers go over the line, and the path as it is")
    func request() throws {
        let server = try FaultServer(["/": .init()])
        for (method, body) in [("PUT", "data"), ("POST", ""), ("PUT", ""), ("DELETE", nil)] as [(String, String?)] {
            _ = try transport.perform(
                HTTPRequest(
                    method, server.url + "/a/../b//c%2Fd?x=%20", headers: [("X-Empty", ""), ("X-Own", "1")],
                    body: body.map { Array($0.utf8) }), stop: .bounded())
        }
        _ = try transport.perform(
            HTTPRequest("PUT", server.url + "/e", headers: [("Content-Type", "")], body: [1]), stop: .bounded())
        let seen = try server.requests()
        #expect(seen.map(\.method) == ["PUT", "POST", "PUT", "DELETE", "PUT"])
        #expect(seen[0].target == "/a/../b//c%2Fd?x=%20")
        #expect(seen[0].body == "data")
        #expect(seen[0].headers.map { $0[0] }.sorted() == ["Content-Length", "Host", "User-Agent", "X-Empty", "X-Own"])
        #expect(seen[2].header("Content-Length") == "0")
        #expect(seen[0].header("Content-Type") == nil)
        #expect(seen[4].header("Content-Type") == "")
        #expect(seen[0].header("User-Agent") == "amorce")
    }

    @Test(
        "what cannot be a request is not sent",
        arguments: [
            HTTPRequest("GET", "ftp://127.0.0.1/"), HTTPRequest("GET", "file:///etc/passwd"),
            HTTPRequest("GET", "http://127.0.0.1/", headers: [("X", "a\r\nY: b")]),
            HTTPRequest("GET", "http://127.0.0.1/", headers: [("X\r\nY", "b")]),
            HTTPRequest("GET / HTTP/1.1\r\nX: y", "http://127.0.0.1/"), HTTPRequest("GET", "http://127.0.0.1/a b"),
            HTTPRequest("GET", "http://user:MADE-UP-SECRET@127.0.0.1:9/"),
        ])
    func malformed(request: HTTPRequest) throws {
        let failure = try failure(request)
        #expect(failure.kind == .malformedRequest || failure.code == 67)
        #expect(!failure.isWorthRetrying || failure.code == 67)
    }

    @Test(
        "each way to get no answer has its own name",
        arguments: [
            (#"{"close":"reset"}"#, HTTPFailure.Kind.reset), (#"{"close":"fin"}"#, .reset),
            (#"{"raw":"hello\n"}"#, .malformedAnswer),
            (#"{"status":200,"body":"abc","headers":{"Content-Length":"9"}}"#, .timeout),
            (#"{"raw":"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"}"#, .truncated),
            (#"{"raw":"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabcdefghi"}"#, .tooLarge(limit: 8)),
        ])
    func noAnswer(step: String, expected: HTTPFailure.Kind) throws {
        let server = try FaultServer(["/x": .init(steps: [step])])
        let failure = try failure(
            HTTPRequest("GET", server.url + "/x?MADE-UP-SECRET", timeout: .milliseconds(900), bodyLimit: 8))
        #expect(failure.kind == expected)
        #expect(failure.url == server.url + "/x")
    }

    @Test("a closed port, a full backlog and a name that is none")
    func unreachable() throws {
        #expect(try failure(HTTPRequest("GET", "http://127.0.0.1:\(LoopbackServer.freePort())/")).kind == .refused)
        let hole = try BlackHole()
        let request = HTTPRequest("GET", "http://127.0.0.1:\(hole.port)/", connectTimeout: .milliseconds(300))
        #expect(try failure(request).kind == .connectTimeout)
    }

    @Test("a stop is noticed while nothing comes")
    func stopped() throws {
        let server = try FaultServer([
            "/x": .init(steps: [#"{"status":200,"body":"a","headers":{"Content-Length":"9"}}"#])
        ])
        let stop = StopFlag(deadline: .milliseconds(200))
        #expect(throws: StopReason.deadline) {
            try transport.perform(HTTPRequest("GET", server.url + "/x", timeout: .seconds(60)), stop: stop)
        }
    }

    @Test("the environment's proxy is used, but never for what must not have one")
    func proxy() throws {
        let proxy = try FaultServer([
            "/": .init(), "http://192.0.2.1/x": .init(steps: [#"{"status":200,"body":"proxied"}"#]),
        ])
        let server = try FaultServer([
            "/x": .init(steps: Array(repeating: #"{"status":200,"body":"direct"}"#, count: 9))
        ])
        let transport = CurlTransport(environment: ["http_proxy": proxy.url, "no_proxy": "localhost"])
        func ask(_ url: String, allowsProxy: Bool = true, connectTo: String? = nil) throws -> String {
            try transport.perform(
                HTTPRequest("GET", url, connectTimeout: .seconds(2), allowsProxy: allowsProxy, connectTo: connectTo),
                stop: .bounded()
            ).text
        }
        #expect(try ask("http://192.0.2.1/x") == "proxied")
        #expect(try ask(server.url + "/x", allowsProxy: false) == "direct")
        #expect(try ask("http://localhost:\(server.port)/x") == "direct")
        #expect(try ask("http://boutique.invalid/x", connectTo: "127.0.0.1:\(server.port)") == "direct")
        #expect(try proxy.requests().count == 1)
    }

    @Test(
        "a name that does not exist is told apart from a name server that fails",
        .enabled(if: Host.isSuperuser, "binds a resolv.conf in a mount namespace of its own"))
    func names() throws {
        let scratch = try ScratchDirectory()
        let settings = try scratch.write("resolv.conf", "nameserver 127.83.0.1\noptions timeout:1 attempts:1\n")
        let server = try LoopbackServer(["python3", FaultServer.program("name-server.py"), "{port}", "127.83.0.1"])
        let transport = transport
        // A namespace belongs to a thread and to those that it starts, libcurl's resolver among them.
        let kinds = try InMountNamespace.run(binding: settings, over: "/etc/resolv.conf") {
            ["absent.test", "broken.test", "silent.test"].map { name in
                do {
                    _ = try transport.perform(HTTPRequest("GET", "http://\(name)/"), stop: .bounded())
                    return nil
                } catch let failure as HTTPFailure {
                    return failure.kind
                } catch {
                    return nil
                }
            } as [HTTPFailure.Kind?]
        }
        #expect(kinds == [.nameNotFound, .nameServerFailed, .nameServerFailed])
        withExtendedLifetime(server) {}
    }

    @Test("the address to connect to can be another one than the name's")
    func connectTo() throws {
        let server = try FaultServer(["/x": .init(steps: [#"{"status":200,"body":"here"}"#])])
        let response = try transport.perform(
            HTTPRequest("GET", "http://boutique.invalid/x", connectTo: "127.0.0.1:\(server.port)"), stop: .bounded())
        #expect(response.text == "here")
        #expect(try server.requests().first?.header("Host") == "boutique.invalid")
    }
}

/// A port that takes no connection and refuses none: its backlog is full.
final class BlackHole {
    let port: Int
    private var sockets: [Int32] = []

    init() throws {
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        sockets.append(listener)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let size = length
        withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                _ = bind(listener, $0, size)
                _ = listen(listener, 0)
                _ = getsockname(listener, $0, &length)
            }
        }
        port = Int(UInt16(bigEndian: address.sin_port))
        for _ in 0..<4 {
            let filler = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
            sockets.append(filler)
            withUnsafePointer(to: &address) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { _ = connect(filler, $0, size) }
            }
        }
    }

    deinit { for descriptor in sockets { close(descriptor) } }
}

/// TLS against the system's own openssl, with certificates made for each case.
@Suite struct TLSTests {
    let scratch: ScratchDirectory

    init() throws {
        scratch = try ScratchDirectory()
        try openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=ca -days 30")
        try openssl("req -x509 -newkey rsa:2048 -nodes -keyout other.key -out other.pem -subj /CN=other -days 30")
        try openssl("req -newkey rsa:2048 -nodes -keyout leaf.key -out leaf.csr -subj /CN=leaf")
        try scratch.write("good.cnf", "subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        try scratch.write("host.cnf", "subjectAltName=DNS:elsewhere.example\n")
        try openssl(
            "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 5 -extfile good.cnf -out good.pem")
        try openssl(
            "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 5 -extfile host.cnf -out host.pem")
        // x509 takes a negative number of days: it ended yesterday.
        try openssl(
            "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days -1 -extfile good.cnf -out expired.pem"
        )
    }

    private func openssl(_ line: String) throws {
        let words = line.split(separator: " ").map(String.init).map {
            $0.contains(".") && !$0.hasPrefix("/") ? scratch($0) : $0
        }
        try Program.check(["openssl"] + words)
    }

    private func server(_ certificate: String, _ options: [String] = []) throws -> LoopbackServer {
        try LoopbackServer(
            [
                "openssl", "s_server", "-accept", "{port}", "-www", "-quiet", "-cert", scratch(certificate), "-key",
                scratch("leaf.key"),
            ]
                + options)
    }

    private func ask(_ server: LoopbackServer, trusting bundle: String) throws -> HTTPResponse {
        let transport = CurlTransport(environment: ["SSL_CERT_FILE": scratch(bundle)])
        return try transport.perform(HTTPRequest("GET", "https://localhost:\(server.port)/"), stop: .bounded())
    }

    @Test("a good certificate is accepted")
    func good() throws {
        #expect(try ask(try server("good.pem"), trusting: "ca.pem").status == 200)
    }

    @Test(
        "each wrong one is refused by its own name",
        arguments: [
            ("expired.pem", "ca.pem", HTTPFailure.TLSProblem.expired), ("host.pem", "ca.pem", .wrongHost),
            ("good.pem", "other.pem", .unknownAuthority),
        ])
    func wrong(certificate: String, bundle: String, expected: HTTPFailure.TLSProblem) throws {
        let server = try server(certificate)
        let failure = try #require(throws: HTTPFailure.self) { try ask(server, trusting: bundle) }
        #expect(failure.kind == .tls(expected))
        #expect(!failure.isWorthRetrying)
    }

    @Test("TLS 1.1 alone is too old, and no TLS at all is none")
    func old() throws {
        let server = try server("good.pem", ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"])
        let failure = try #require(throws: HTTPFailure.self) { try ask(server, trusting: "ca.pem") }
        #expect(failure.kind == .tls(.protocolVersion))
        let plain = try FaultServer(["/": .init()])
        let transport = CurlTransport(environment: ["SSL_CERT_FILE": scratch("ca.pem")])
        let other = try #require(throws: HTTPFailure.self) {
            try transport.perform(
                HTTPRequest("GET", "https://localhost:\(plain.port)/", timeout: .seconds(3)), stop: .bounded())
        }
        #expect(other.kind == .tls(.protocolVersion) || other.kind == .connectTimeout)
    }

    @Test("without any authority nothing is asked, and the files looked at are named")
    func noAuthorities() throws {
        let server = try server("good.pem")
        try scratch.write("empty.pem", "nothing here\n")
        for bundle in ["empty.pem", "missing.pem"] {
            let failure = try #require(throws: HTTPFailure.self) { try ask(server, trusting: bundle) }
            guard case .noCertificates(let found) = failure.kind else {
                Issue.record("\(failure)")
                continue
            }
            #expect(found.looked.count == 1)
            #expect("\(failure)".contains(scratch(bundle)))
        }
        // http needs none.
        let plain = try FaultServer(["/x": .init(steps: [#"{"status":204}"#])])
        let transport = CurlTransport(environment: ["SSL_CERT_FILE": scratch("missing.pem")])
        #expect(try transport.perform(HTTPRequest("GET", plain.url + "/x"), stop: .bounded()).status == 204)
    }

    @Test("the first variable that is set decides alone; else the distributions' places are looked at in order")
    func places() throws {
        let environment = ["AWS_CA_BUNDLE": scratch("ca.pem"), "SSL_CERT_FILE": scratch("missing.pem")]
        let bundle = try CertificateBundle.find(environment: environment)
        #expect(bundle.path == scratch("ca.pem"))
        #expect(bundle.count == 1)
        #expect(throws: CertificateBundle.NotFound.self) {
            try CertificateBundle.find(environment: ["CURL_CA_BUNDLE": scratch("none")], places: [scratch("ca.pem")])
        }
        let places = [scratch("none"), scratch("leaf.key"), scratch("other.pem"), scratch("ca.pem")]
        #expect(try CertificateBundle.find(environment: [:], places: places).path == scratch("other.pem"))
        let nothing = try #require(throws: CertificateBundle.NotFound.self) {
            try CertificateBundle.find(environment: [:], places: Array(places.prefix(2)))
        }
        #expect(nothing.looked.count == 2)
    }
}

/// Bodies that are sent.
@Suite struct CurlBodyTests {
    let transport = CurlTransport(environment: [:])

    @Test("a large body arrives as it is, whatever its method, and again on the next connection")
    func large() throws {
        let bytes = seededBytes(500_001)
        let server = try FaultServer([
            "/x": .init(steps: [
                #"{"status":200}"#, #"{"status":503,"headers":{"Connection":"close"}}"#, #"{"status":200}"#,
            ])
        ])
        for method in ["PUT", "POST", "PUT"] {
            _ = try transport.perform(HTTPRequest(method, server.url + "/x", body: bytes), stop: .bounded())
        }
        let seen = try server.requests()
        #expect(seen.map(\.method) == ["PUT", "POST", "PUT"])
        #expect(seen.allSatisfy { $0.body.unicodeScalars.map { UInt8($0.value) } == bytes })
        #expect(seen.allSatisfy { $0.header("Content-Length") == "500001" && $0.header("Expect") == nil })
        #expect(seen.allSatisfy { $0.header("Transfer-Encoding") == nil })
    }

    @Test("libcurl repeats by itself what broke on a kept connection, unless a fresh one is asked for")
    func repetition() throws {
        func ask(isFresh: Bool) throws -> (HTTPResponse?, [String]) {
            let server = try FaultServer([
                "/x": .init(steps: [#"{"status":200}"#, #"{"close":"fin"}"#, #"{"status":201}"#])
            ])
            let transport = CurlTransport(environment: [:])
            _ = try transport.perform(HTTPRequest("PUT", server.url + "/x", body: [1]), stop: .bounded())
            let response = try? transport.perform(
                HTTPRequest("PUT", server.url + "/x", body: [2, 3], needsFreshConnection: isFresh), stop: .bounded())
            return (response, try server.requests().map(\.body))
        }
        let (response, bodies) = try ask(isFresh: true)
        #expect(response == nil)
        #expect(bodies == ["\u{1}", "\u{2}\u{3}"])
        let (repeated, kept) = try ask(isFresh: false)
        #expect(repeated?.status == 201)
        #expect(kept == ["\u{1}", "\u{2}\u{3}", "\u{2}\u{3}"])
    }

    @Test("an answer that comes before the body was taken is one, and the body is not sent to its end")
    func early() throws {
        let program = """
            import socket, sys
            listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
            while True:
                connection, _ = listener.accept()
                data = b""
                while b"\\r\\n\\r\\n" not in data:
                    more = connection.recv(4096)
                    if not more:
                        break
                    data += more
                else:
                    connection.sendall(b"HTTP/1.1 403 No\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\nno")
                connection.close()
            """
        let server = try LoopbackServer(["python3", "-c", program, "{port}"])
        for _ in 0..<10 {
            let response = try transport.perform(
                HTTPRequest("PUT", server.url + "/x", body: seededBytes(16 << 20)), stop: .bounded())
            #expect(response.status == 403 && response.text == "no")
        }
    }

    @Test("a transfer in which nothing moves ends before its timeout")
    func idle() throws {
        let server = try FaultServer([
            "/x": .init(steps: [#"{"status":200,"body":"a","headers":{"Content-Length":"9"}}"#])
        ])
        let failure = try #require(throws: HTTPFailure.self) {
            try transport.perform(
                HTTPRequest("PUT", server.url + "/x", body: [1], timeout: .seconds(90), idle: .seconds(1)),
                stop: .bounded())
        }
        #expect(failure.kind == .stalled(.seconds(1)))
        #expect(failure.mayHaveArrived && failure.isWorthRetrying)
    }
}
