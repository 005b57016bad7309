/// One HTTP request. Header values may hold credentials, so a request cannot be printed.
public struct HTTPRequest: Sendable, CustomStringConvertible, CustomReflectable {
    public var method: String
    public var url: String
    public var headers: [(name: String, value: String)]
    public var body: [UInt8]?
    /// Until the connection stands.
    public var connectTimeout: Duration
    /// Until the whole answer is here.
    public var timeout: Duration
    /// Nothing at all sent or received for this long ends the transfer before its timeout; nil: only the timeout does.
    public var idle: Duration?
    /// A new connection. libcurl by itself repeats a request whose kept connection broke before the first byte of the
    /// answer; whoever must know whether the server can have had a request twice forbids that so.
    public var needsFreshConnection: Bool
    /// Link-local addresses (instance metadata) must never go through a proxy, whatever the environment says.
    public var allowsProxy: Bool
    /// An answer with a larger body is an error.
    public var bodyLimit: Int
    /// `HOST:PORT` to connect to in place of the URL's own; the Host header and TLS name stay the URL's.
    public var connectTo: String?

    public init(
        _ method: String = "GET", _ url: String, headers: [(name: String, value: String)] = [], body: [UInt8]? = nil,
        connectTimeout: Duration = .seconds(5), timeout: Duration = .seconds(30), allowsProxy: Bool = true,
        bodyLimit: Int = 8 << 20, connectTo: String? = nil, idle: Duration? = nil, needsFreshConnection: Bool = false
    ) {
        self.method = method
        self.url = url
        self.headers = headers
        self.body = body
        self.connectTimeout = connectTimeout
        self.timeout = timeout
        self.allowsProxy = allowsProxy
        self.bodyLimit = bodyLimit
        self.connectTo = connectTo
        self.idle = idle
        self.needsFreshConnection = needsFreshConnection
    }

    /// The method and the URL without its query, which may be a signature.
    public var description: String { "\(method) \(Self.withoutQuery(url))" }
    public var customMirror: Mirror { Mirror(self, children: []) }

    public static func withoutQuery(_ url: String) -> String {
        Printable.text(String(url.prefix { $0 != "?" && $0 != "#" }))
    }
}

public struct HTTPResponse: Sendable {
    public var status: Int
    public var headers: [(name: String, value: String)]
    public var body: [UInt8]

    public init(status: Int, headers: [(name: String, value: String)] = [], body: [UInt8] = []) {
        self.status = status
        self.headers = headers
        self.body = body
    }

    /// The first header of that name, in any case of letters (RFC 9110, section 5.1).
    public func header(_ name: String) -> String? {
        headers.first { $0.name.lowercased() == name.lowercased() }?.value
    }

    public var text: String { String(decoding: body, as: UTF8.self) }
}

/// Why no answer came, where a transport can tell. Whoever retries decides by it; any other error that is no `StopReason`
/// counts as "no answer" all the same.
public protocol HTTPTransportFailure: Error, CustomStringConvertible {
    /// A limit of the request ran out: until the connection stood, or until the answer was whole.
    var isTimeout: Bool { get }
    /// Nobody listens at that address, or no route leads there.
    var isRefused: Bool { get }
    /// The answer is larger than `bodyLimit`: the next one will be too.
    var isTooLarge: Bool { get }
}

extension HTTPTransportFailure {
    public var isTooLarge: Bool { false }
}

/// Whoever carries a request to a server and its answer back. Redirects are not followed: whoever signed the request decides.
/// Any status is an answer; only a missing answer throws (`HTTPFailure`, or `StopReason`). Blocking; safe from any thread.
public protocol HTTPTransport: Sendable {
    func perform(_ request: HTTPRequest, stop: StopFlag) throws -> HTTPResponse
}
