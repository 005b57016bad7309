internal import CCurl
internal import COpenSSL
internal import Glibc
internal import Synchronization

/// libcurl and OpenSSL, set up once per process before the first handle.
enum CurlLibrary {
    static let isReady: Bool = {
        // OpenSSL first: whoever initialises it first decides that no configuration file is read.
        _ = amorce_openssl_init()
        // CURLOPT_NOSIGNAL keeps libcurl from touching signals, SIGPIPE too; a server that goes away must not end the
        // process.
        signal(SIGPIPE, SIG_IGN)
        return curl_global_init(Int(CURL_GLOBAL_ALL)) == CURLE_OK
    }()
}

/// What all transfers of one store or transport share. Safe from any thread.
final class CurlSettings: Sendable {
    let userAgent: String
    private let environment: [String: String]
    private let found = Mutex<Result<CertificateBundle, CertificateBundle.NotFound>?>(nil)

    init(userAgent: String, environment: [String: String]) {
        self.userAgent = userAgent
        self.environment = environment
    }

    /// As curl(1) reads it: `http_proxy` in small letters alone, since a CGI server sets HTTP_PROXY from a request's
    /// header.
    func proxy(_ scheme: String) -> String? {
        let names = scheme == "https" ? ["https_proxy", "HTTPS_PROXY"] : ["http_proxy"]
        return (names + ["all_proxy", "ALL_PROXY"]).lazy.compactMap { self.environment[$0] }.first { !$0.isEmpty }
    }

    var directHosts: String { environment["no_proxy"] ?? environment["NO_PROXY"] ?? "" }

    /// Looked for at the first https request and kept.
    func certificates() throws(CertificateBundle.NotFound) -> CertificateBundle {
        let result = found.withLock { found in
            if let found { return found }
            let environment = environment
            let fresh = Result { () throws(CertificateBundle.NotFound) in
                try CertificateBundle.find(environment: environment)
            }
            found = fresh
            return fresh
        }
        return try result.get()
    }
}

/// One request on one libcurl easy handle, with the head of its answer. Belongs to one thread; subclasses take the
/// body.
class CurlEasy {
    enum Taken {
        case all
        /// No room now: the same bytes come again after `resume()`.
        case none
        /// Ends the transfer with CURLE_WRITE_ERROR.
        case refuse
    }

    let handle: UnsafeMutableRawPointer
    let url: String
    private var lists: [UnsafeMutablePointer<curl_slist>] = []
    private let errorText: UnsafeMutablePointer<CChar>
    /// Status and headers of the last answer; its body stays empty here.
    private(set) var head = HTTPResponse(status: 0)
    private var headSize = 0
    private(set) var isPaused = false
    private let lookupHost: String
    /// Read from where it is, piece by piece: a part of a backup is tens of megabytes.
    private let body: [UInt8]
    private var bodySent = 0
    private let idle: Duration?
    private let timeout: Duration?

    /// Sets everything but the total timeout, which `timeout` gives where there is one.
    init(_ request: HTTPRequest, settings: CurlSettings, timeout: Duration?) throws {
        url = request.url
        lookupHost = Self.host(of: request.url)
        body = request.body ?? []
        idle = request.idle
        self.timeout = timeout
        guard CurlLibrary.isReady, let handle = curl_easy_init() else {
            throw HTTPFailure(.other, url: request.url, detail: "libcurl cannot be initialised")
        }
        self.handle = handle
        errorText = .allocate(capacity: Int(CURL_ERROR_SIZE))
        errorText.initialize(repeating: 0, count: Int(CURL_ERROR_SIZE))
        try configure(request, settings, timeout)
    }

    deinit {
        curl_easy_cleanup(handle)
        for list in lists { curl_slist_free_all(list) }
        errorText.deallocate()
    }

    /// Called with each piece of the answer's body, whatever the status.
    func receive(_ bytes: UnsafeRawBufferPointer) -> Taken { .all }

    func resume() {
        guard isPaused else { return }
        isPaused = false
        curl_easy_pause(handle, 0)
    }

    // MARK: options

    private func set(_ option: CURLoption, _ value: Int) { _ = amorce_curl_set_long(handle, option, value) }
    private func set(_ option: CURLoption, _ value: String?) { _ = amorce_curl_set_string(handle, option, value) }

    private func configure(_ request: HTTPRequest, _ settings: CurlSettings, _ timeout: Duration?) throws {
        let scheme = request.url.prefix { $0 != ":" }.lowercased()
        guard scheme == "http" || scheme == "https", !Self.breaksLine(request.url), !request.url.contains(" ") else {
            throw HTTPFailure(.malformedRequest, url: request.url, detail: "only http and https URLs are asked")
        }
        guard !Self.breaksLine(request.method), !request.method.isEmpty else {
            throw HTTPFailure(.malformedRequest, url: request.url, detail: "the method is not one word")
        }
        _ = amorce_curl_set_pointer(handle, CURLOPT_ERRORBUFFER, errorText)
        set(CURLOPT_URL, request.url)
        set(CURLOPT_PROTOCOLS_STR, "http,https")
        set(CURLOPT_NOSIGNAL, 1)
        // Without it a handle that is given up while a name is looked up waits for the resolver's own timeouts.
        set(CURLOPT_QUICK_EXIT, 1)
        set(CURLOPT_FOLLOWLOCATION, 0)
        set(CURLOPT_DISALLOW_USERNAME_IN_URL, 1)
        // A signature covers the path as it was written.
        set(CURLOPT_PATH_AS_IS, 1)
        // Ranges in flight need connections of their own, not streams of one.
        set(CURLOPT_HTTP_VERSION, Int(CURL_HTTP_VERSION_1_1))
        set(CURLOPT_HTTP_CONTENT_DECODING, 0)
        set(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1)
        set(CURLOPT_TCP_KEEPALIVE, 1)
        set(CURLOPT_BUFFERSIZE, 128 << 10)
        set(CURLOPT_CONNECTTIMEOUT_MS, Self.milliseconds(request.connectTimeout))
        if let timeout { set(CURLOPT_TIMEOUT_MS, Self.milliseconds(timeout)) }
        if let idle = request.idle {
            // Both directions count as speed.
            set(CURLOPT_LOW_SPEED_LIMIT, 1)
            set(CURLOPT_LOW_SPEED_TIME, max(1, Int(idle.inSeconds)))
        }
        if request.needsFreshConnection {
            set(CURLOPT_FRESH_CONNECT, 1)
            // One that nobody expects would only take room among those that are kept.
            set(CURLOPT_FORBID_REUSE, 1)
        }
        if scheme == "https" {
            do {
                set(CURLOPT_CAINFO, try settings.certificates().path)
            } catch {
                throw HTTPFailure(.noCertificates(error), url: request.url)
            }
            set(CURLOPT_CAPATH, nil)
            set(CURLOPT_SSLVERSION, Int(CURL_SSLVERSION_TLSv1_2))
        }
        // An address that the caller names is meant literally, so it is not asked of a proxy either. Both options are
        // always set: libcurl would else look at the process's own environment.
        let isDirect = !request.allowsProxy || request.connectTo != nil
        set(CURLOPT_PROXY, isDirect ? "" : settings.proxy(scheme) ?? "")
        set(CURLOPT_NOPROXY, isDirect ? "*" : settings.directHosts)
        if let place = request.connectTo { setList(CURLOPT_CONNECT_TO, ["::" + place]) }
        try setMethod(request)
        try setHeaders(request, settings)
        setCallbacks()
    }

    private func setMethod(_ request: HTTPRequest) throws {
        if request.method == "HEAD" {
            set(CURLOPT_NOBODY, 1)
        } else if request.body != nil || request.method == "POST" || request.method == "PUT" {
            // A POST whose body is asked for through a callback; the method's name is the request's own.
            set(CURLOPT_POST, 1)
            _ = amorce_curl_set_offset(handle, CURLOPT_POSTFIELDSIZE_LARGE, curl_off_t(body.count))
            if body.count > 256 << 10 { set(CURLOPT_UPLOAD_BUFFERSIZE, 256 << 10) }
            set(CURLOPT_CUSTOMREQUEST, request.method)
        } else if request.method != "GET" {
            set(CURLOPT_CUSTOMREQUEST, request.method)
        }
    }

    private func setHeaders(_ request: HTTPRequest, _ settings: CurlSettings) throws {
        var lines: [String] = []
        for (name, value) in request.headers {
            guard !name.isEmpty, !Self.breaksLine(name), !Self.breaksLine(value), !name.contains(":"),
                !name.contains(";")
            else { throw HTTPFailure(.malformedRequest, url: request.url, detail: "a header holds a line break") }
            // "Name;" is libcurl's way to send a header without a value; "Name:" would leave it out.
            lines.append(value.isEmpty ? name + ";" : "\(name): \(value)")
        }
        let given = Set(request.headers.map { $0.name.lowercased() })
        // What libcurl would add by itself is left out, so that exactly the caller's headers go over the line.
        for name in ["Accept", "Content-Type", "Expect"] where !given.contains(name.lowercased()) {
            lines.append(name + ":")
        }
        if !given.contains("user-agent") { set(CURLOPT_USERAGENT, settings.userAgent) }
        setList(CURLOPT_HTTPHEADER, lines)
    }

    private func setList(_ option: CURLoption, _ lines: [String]) {
        var list: UnsafeMutablePointer<curl_slist>?
        for line in lines { list = curl_slist_append(list, line) ?? list }
        guard let list else { return }
        lists.append(list)
        _ = amorce_curl_set_list(handle, option, list)
    }

    private func setCallbacks() {
        let context = Unmanaged.passUnretained(self).toOpaque()
        setBodyCallbacks()
        _ = amorce_curl_set_pointer(handle, CURLOPT_PRIVATE, context)
        _ = amorce_curl_set_pointer(handle, CURLOPT_WRITEDATA, context)
        _ = amorce_curl_set_pointer(handle, CURLOPT_HEADERDATA, context)
        _ = amorce_curl_set_data_callback(handle, CURLOPT_HEADERFUNCTION) { data, size, count, context in
            guard let data, let context else { return 0 }
            let easy = Unmanaged<CurlEasy>.fromOpaque(context).takeUnretainedValue()
            return easy.takeHeader(UnsafeRawBufferPointer(start: data, count: size * count)) ? size * count : 0
        }
        _ = amorce_curl_set_data_callback(handle, CURLOPT_WRITEFUNCTION) { data, size, count, context in
            guard let data, let context else { return 0 }
            let easy = Unmanaged<CurlEasy>.fromOpaque(context).takeUnretainedValue()
            switch easy.receive(UnsafeRawBufferPointer(start: data, count: size * count)) {
            case .all: return size * count
            case .refuse: return 0
            case .none:
                easy.isPaused = true
                return Int(CURL_WRITEFUNC_PAUSE)
            }
        }
    }

    private func setBodyCallbacks() {
        let context = Unmanaged.passUnretained(self).toOpaque()
        _ = amorce_curl_set_pointer(handle, CURLOPT_READDATA, context)
        _ = amorce_curl_set_pointer(handle, CURLOPT_SEEKDATA, context)
        _ = amorce_curl_set_data_callback(handle, CURLOPT_READFUNCTION) { room, size, count, context in
            guard let room, let context else { return 0 }
            let easy = Unmanaged<CurlEasy>.fromOpaque(context).takeUnretainedValue()
            return easy.giveBody(UnsafeMutableRawBufferPointer(start: room, count: size * count))
        }
        // libcurl begins a body again when a kept connection turns out to be dead.
        _ = amorce_curl_set_seek_callback(handle, CURLOPT_SEEKFUNCTION) { context, offset, origin in
            guard let context, origin == SEEK_SET else { return CURL_SEEKFUNC_CANTSEEK }
            let easy = Unmanaged<CurlEasy>.fromOpaque(context).takeUnretainedValue()
            return easy.rewind(to: Int(offset)) ? CURL_SEEKFUNC_OK : CURL_SEEKFUNC_FAIL
        }
    }

    private func giveBody(_ room: UnsafeMutableRawBufferPointer) -> Int {
        let count = min(room.count, body.count - bodySent)
        body.withUnsafeBytes {
            room.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[bodySent..<bodySent + count]))
        }
        bodySent += count
        return count
    }

    private func rewind(to offset: Int) -> Bool {
        guard (0...body.count).contains(offset) else { return false }
        bodySent = offset
        return true
    }

    private func takeHeader(_ bytes: UnsafeRawBufferPointer) -> Bool {
        headSize += bytes.count
        guard headSize <= 256 << 10 else { return false }
        let line = String(decoding: bytes, as: UTF8.self)
        if line.hasPrefix("HTTP/") {
            // 100 Continue comes before the answer; the last status line counts.
            let words = line.split(separator: " ", maxSplits: 2)
            head = HTTPResponse(status: words.count > 1 ? Int(words[1].prefix(3)) ?? 0 : 0)
        } else if let colon = line.firstIndex(of: ":") {
            let value = line[line.index(after: colon)...]
            head.headers.append((String(line[..<colon]), Self.trimmed(value)))
        }
        return true
    }

    // MARK: failures

    /// What a CURLcode other than CURLE_OK means. May look a name up once more.
    func failure(_ code: CURLcode) -> HTTPFailure {
        let said = String(
            decoding: UnsafeBufferPointer(start: errorText, count: Int(CURL_ERROR_SIZE)).prefix { $0 != 0 }
                .map { UInt8(bitPattern: $0) }, as: UTF8.self)
        let detail = said.isEmpty ? String(cString: curl_easy_strerror(code)) : said
        return HTTPFailure(kind(of: code), url: url, code: Int32(code.rawValue), detail: detail)
    }

    private func kind(of code: CURLcode) -> HTTPFailure.Kind {
        switch code {
        case CURLE_UNSUPPORTED_PROTOCOL where head.status == 0 && microseconds(CURLINFO_PRETRANSFER_TIME_T) > 0,
            CURLE_WEIRD_SERVER_REPLY, CURLE_BAD_CONTENT_ENCODING, CURLE_WRITE_ERROR:
            return .malformedAnswer
        case CURLE_UNSUPPORTED_PROTOCOL, CURLE_URL_MALFORMAT, CURLE_BAD_FUNCTION_ARGUMENT: return .malformedRequest
        case CURLE_COULDNT_RESOLVE_HOST: return lookupProblem()
        case CURLE_COULDNT_RESOLVE_PROXY, CURLE_PROXY: return .proxy
        case CURLE_COULDNT_CONNECT:
            switch CInt(truncatingIfNeeded: number(CURLINFO_OS_ERRNO)) {
            case ECONNREFUSED: return .refused
            case ETIMEDOUT: return .connectTimeout
            case ENETUNREACH, EHOSTUNREACH, ENETDOWN, EHOSTDOWN, EADDRNOTAVAIL: return .networkUnreachable
            default: return microseconds(CURLINFO_NAMELOOKUP_TIME_T) == 0 ? .nameServerFailed : .networkUnreachable
            }
        case CURLE_OPERATION_TIMEDOUT:
            if microseconds(CURLINFO_NAMELOOKUP_TIME_T) == 0 { return .nameServerFailed }
            if microseconds(CURLINFO_PRETRANSFER_TIME_T) == 0 { return .connectTimeout }
            if let idle, timeout.map({ Double(microseconds(CURLINFO_TOTAL_TIME_T)) < $0.inSeconds * 1e6 }) ?? true {
                return .stalled(idle)
            }
            return .timeout
        case CURLE_RECV_ERROR, CURLE_SEND_ERROR, CURLE_GOT_NOTHING, CURLE_HTTP2, CURLE_HTTP2_STREAM: return .reset
        case CURLE_PARTIAL_FILE: return .truncated
        case CURLE_SSL_CACERT_BADFILE: return .tls(.other)
        case CURLE_SSL_CONNECT_ERROR:
            // libcurl gives a connection broken inside the handshake the same code as a failed handshake.
            switch CInt(truncatingIfNeeded: number(CURLINFO_OS_ERRNO)) {
            case ECONNRESET, EPIPE, ECONNABORTED: return .reset
            default: return .tls(.protocolVersion)
            }
        case CURLE_PEER_FAILED_VERIFICATION: return .tls(certificateProblem())
        default: return .other
        }
    }

    private func certificateProblem() -> HTTPFailure.TLSProblem {
        switch CInt(truncatingIfNeeded: number(CURLINFO_SSL_VERIFYRESULT)) {
        // OpenSSL accepted the chain; the check of the name is libcurl's own, and comes before it stores OpenSSL's
        // result.
        case X509_V_OK, X509_V_ERR_UNSPECIFIED, X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH: .wrongHost
        case X509_V_ERR_CERT_HAS_EXPIRED: .expired
        case X509_V_ERR_CERT_NOT_YET_VALID: .notYetValid
        case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT, X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN,
            X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY, X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT,
            X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE, X509_V_ERR_CERT_SIGNATURE_FAILURE:
            .unknownAuthority
        default: .other
        }
    }

    /// libcurl says the same for "no such name" and "the name server is down"; getaddrinfo tells them apart. A look-up
    /// that already took long is not begun again: it was no clear answer.
    private func lookupProblem() -> HTTPFailure.Kind {
        guard microseconds(CURLINFO_TOTAL_TIME_T) < 3_000_000 else { return .nameServerFailed }
        var result: UnsafeMutablePointer<addrinfo>?
        let code = getaddrinfo(lookupHost, nil, nil, &result)
        if let result { freeaddrinfo(result) }
        return Self.lookupKind(code)
    }

    static func lookupKind(_ code: CInt) -> HTTPFailure.Kind {
        // EAI_NODATA (-5): the name is there but has no address; glibc hides the constant behind a GNU macro.
        code == EAI_NONAME || code == -5 ? .nameNotFound : .nameServerFailed
    }

    private func number(_ info: CURLINFO) -> Int {
        var value = 0
        _ = amorce_curl_get_long(handle, info, &value)
        return value
    }

    private func microseconds(_ info: CURLINFO) -> Int64 {
        var value: curl_off_t = 0
        _ = amorce_curl_get_offset(handle, info, &value)
        return Int64(value)
    }

    // MARK: text

    private static func host(of url: String) -> String {
        let authority = url.split(separator: "/", omittingEmptySubsequences: true).dropFirst().first ?? ""
        if authority.hasPrefix("[") { return String(authority.dropFirst().prefix { $0 != "]" }) }
        return String(authority.prefix { $0 != ":" && $0 != "?" && $0 != "#" })
    }

    private static func breaksLine(_ text: String) -> Bool {
        text.utf8.contains { $0 == 0 || $0 == 0x0a || $0 == 0x0d }
    }

    private static func milliseconds(_ duration: Duration) -> Int { max(1, Int(min(duration.inSeconds * 1000, 1e9))) }

    private static func trimmed(_ text: Substring) -> String {
        let isBlank = { (byte: UInt8) in byte == 0x20 || byte == 0x09 || byte == 0x0d || byte == 0x0a }
        var rest = text.utf8
        while let first = rest.first, isBlank(first) { rest.removeFirst() }
        while let last = rest.last, isBlank(last) { rest.removeLast() }
        return String(rest) ?? ""
    }
}
