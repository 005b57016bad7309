import Glibc
public import HostSystem

/// HTTP/1.1 over one plain socket per request, to `http://IPv4:PORT` alone: enough for tests against real servers that must
/// not depend on the transport that ships.
public struct PlainTransport: HTTPTransport {
    public struct Failure: HTTPTransportFailure {
        public var isTimeout = false
        public var isRefused = false
        public var isTooLarge = false
        public var description: String
    }

    public init() {}

    public func perform(_ request: HTTPRequest, stop: StopFlag) throws -> HTTPResponse {
        let began = ContinuousClock.now
        let rest = request.url.dropFirst("http://".count)
        let authority = String(rest.prefix { $0 != "/" })
        let path = String(rest.dropFirst(authority.count))
        let parts = authority.split(separator: ":")
        guard request.url.hasPrefix("http://"), let port = parts.last.flatMap({ UInt16($0) }) else {
            throw Failure(description: "no http://IPv4:PORT")
        }
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue), 0)
        defer { close(descriptor) }
        try connect(descriptor, host: String(parts[0]), port: port, until: began.advanced(by: request.connectTimeout), stop)
        let end = began.advanced(by: request.timeout)

        var text = "\(request.method) \(path.isEmpty ? "/" : path) HTTP/1.1\r\nHost: \(authority)\r\nConnection: close\r\n"
        for (name, value) in request.headers { text += "\(name): \(value)\r\n" }
        if let body = request.body { text += "Content-Length: \(body.count)\r\n" }
        var unsent = (Array((text + "\r\n").utf8) + (request.body ?? []))[...]
        while !unsent.isEmpty {
            try wait(descriptor, for: Int16(POLLOUT), until: end, stop)
            let count = unsent.withUnsafeBytes { send(descriptor, $0.baseAddress, $0.count, CInt(MSG_NOSIGNAL)) }
            if count < 0 { throw Failure(description: "send: \(Errno.text(errno))") }
            unsent = unsent.dropFirst(count)
        }
        var received: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65536)
        while true {
            try wait(descriptor, for: Int16(POLLIN), until: end, stop)
            let count = recv(descriptor, &buffer, buffer.count, 0)
            if count < 0 { throw Failure(description: "recv: \(Errno.text(errno))") }
            if count == 0 { break }
            received.append(contentsOf: buffer.prefix(count))
            if received.count > request.bodyLimit + 65536 { throw Failure(isTooLarge: true, description: "too large") }
        }
        return try parse(received, limit: request.bodyLimit)
    }

    private func connect(
        _ descriptor: CInt, host: String, port: UInt16, until end: ContinuousClock.Instant, _ stop: StopFlag
    ) throws {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        guard inet_pton(AF_INET, host, &address.sin_addr) == 1 else { throw Failure(description: "no IPv4 address") }
        let result = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        if result == 0 { return }
        var code = errno
        if code == EINPROGRESS {
            try wait(descriptor, for: Int16(POLLOUT), until: end, stop)
            var length = socklen_t(MemoryLayout<CInt>.size)
            getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &code, &length)
        }
        if code != 0 { throw Failure(isRefused: code == ECONNREFUSED, description: "connect: \(Errno.text(code))") }
    }

    private func wait(_ descriptor: CInt, for events: Int16, until end: ContinuousClock.Instant, _ stop: StopFlag) throws {
        while true {
            try stop.check()
            if ContinuousClock.now >= end { throw Failure(isTimeout: true, description: "timed out") }
            var entry = pollfd(fd: descriptor, events: events, revents: 0)
            if poll(&entry, 1, 20) > 0 { return }
        }
    }

    private func parse(_ bytes: [UInt8], limit: Int) throws -> HTTPResponse {
        guard let end = bytes.firstRange(of: Array("\r\n\r\n".utf8)) else { throw Failure(description: "no header") }
        var lines = String(decoding: bytes[..<end.lowerBound], as: UTF8.self).split(separator: "\r\n").map(String.init)
        let words = lines.removeFirst().split(separator: " ")
        guard words.count >= 2, words[0].hasPrefix("HTTP/1."), let status = Int(words[1]) else {
            throw Failure(description: "no status line")
        }
        var response = HTTPResponse(status: status, body: Array(bytes[end.upperBound...]))
        for line in lines {
            let parts = line.split(separator: ":", maxSplits: 1).map { $0.drop { $0 == " " } }
            if parts.count == 2 { response.headers.append((String(parts[0]), String(parts[1]))) }
        }
        if let length = response.header("Content-Length").flatMap({ Int($0) }), response.body.count != length {
            throw Failure(description: "\(response.body.count) of \(length) bytes")
        }
        if response.body.count > limit { throw Failure(isTooLarge: true, description: "too large") }
        return response
    }
}
