internal import CCurl
internal import Synchronization

/// Requests and answers through libcurl, each answer whole in memory within its limit. http and https only, TLS 1.2 and
/// later with the host's certificate authorities, proxies as the environment says (`https_proxy`, `no_proxy`) unless
/// the request forbids them, redirects not followed. A stop is noticed within 100 ms. Connections are kept alive
/// between requests.
///
/// Throws `HTTPFailure`, or the `StopReason` when the run must end. Safe from any thread.
public final class CurlTransport: HTTPTransport {
    private let settings: CurlSettings
    private let idle = Mutex<[CurlLoop]>([])

    public init(userAgent: String = "amorce", environment: [String: String] = Host.environment()) {
        settings = CurlSettings(userAgent: userAgent, environment: environment)
    }

    public func perform(_ request: HTTPRequest, stop: StopFlag) throws -> HTTPResponse {
        try stop.check()
        let easy = try WholeAnswer(request, settings: settings)
        let loop = try idle.withLock { $0.popLast() } ?? CurlLoop(url: request.url)
        let code = try loop.run(easy, stop: stop)
        if easy.isTooLarge {
            throw HTTPFailure(.tooLarge(limit: request.bodyLimit), url: request.url, code: Int32(code.rawValue))
        }
        guard code == CURLE_OK else { throw easy.failure(code) }
        // Only after a good answer: a retry after a failure gets a new connection and a fresh look-up of the name.
        idle.withLock { if $0.count < 32 { $0.append(loop) } }
        return easy.response
    }
}

/// Collects a body within its limit.
private final class WholeAnswer: CurlEasy {
    private let limit: Int
    private var body: [UInt8] = []
    private(set) var isTooLarge = false

    init(_ request: HTTPRequest, settings: CurlSettings) throws {
        limit = request.bodyLimit
        try super.init(request, settings: settings, timeout: request.timeout)
    }

    var response: HTTPResponse { HTTPResponse(status: head.status, headers: head.headers, body: body) }

    override func receive(_ bytes: UnsafeRawBufferPointer) -> Taken {
        guard body.count + bytes.count <= limit else {
            isTooLarge = true
            return .refuse
        }
        body.append(contentsOf: bytes)
        return .all
    }
}

/// A multi handle driven by whichever thread holds it. `curl_easy_perform` looks at its progress callback only once a
/// second while nothing comes; this loop looks at the stop flag ten times a second.
private final class CurlLoop: @unchecked Sendable {
    private let multi: UnsafeMutableRawPointer

    init(url: String) throws {
        guard let multi = curl_multi_init() else {
            throw HTTPFailure(.other, url: url, detail: "libcurl cannot be initialised")
        }
        self.multi = multi
    }

    deinit { curl_multi_cleanup(multi) }

    func run(_ easy: CurlEasy, stop: StopFlag) throws -> CURLcode {
        guard curl_multi_add_handle(multi, easy.handle) == CURLM_OK else { return CURLE_FAILED_INIT }
        defer { curl_multi_remove_handle(multi, easy.handle) }
        while true {
            var running: CInt = 0
            guard curl_multi_perform(multi, &running) == CURLM_OK else { return CURLE_FAILED_INIT }
            var left: CInt = 0
            while let message = curl_multi_info_read(multi, &left) {
                if message.pointee.msg == CURLMSG_DONE { return amorce_curl_message_result(message) }
            }
            try stop.check()
            curl_multi_poll(multi, nil, 0, 100, nil)
        }
    }
}
