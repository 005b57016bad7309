public import HostSystem
internal import Synchronization

/// Files of a plain web server, each by its path. No credentials are involved, so redirects are followed, five at most, to
/// http or https alone, and never from https to http.
///
/// The pin is a strong ETag, or else the time of the last change; without either the file comes in one stream.
public struct WebStore: ObjectStore {
    static let mostRedirects = 5

    /// Where requests for one key go by now: a redirect learnt by one holds for all.
    private final class Route: Sendable {
        struct State {
            var address: WebAddress
            var hops = 0
        }

        let start: WebAddress
        let state: Mutex<State>

        init(_ start: WebAddress) {
            self.start = start
            state = Mutex(State(address: start))
        }
    }

    public let location: String
    private let origin: WebAddress
    private let query: Secret?
    private let exchange: Exchange
    private let options: StoreOptions

    /// `query` is sent with every request and never shown: it may be a signature. Throws `StoreError.badSetting` where `url` is
    /// no http or https URL.
    public init(
        origin url: String, query: Secret? = nil, options: StoreOptions, transport: any HTTPTransport, log: Log
    ) throws(StoreError) {
        guard let origin = WebAddress(url) else {
            throw .badSetting("\(HTTPRequest.withoutQuery(url)) is no http or https URL")
        }
        self.origin = origin
        self.query = query
        self.options = options
        location = origin.origin + "/"
        exchange = Exchange(transport: transport, retry: options.retry, log: log)
    }

    public func list(prefix: String, stop: StopFlag) throws -> [StoredObject] {
        throw StoreError.cannotList(location: location + Printable.text(prefix))
    }

    public func stat(key: String, stop: StopFlag) throws -> StoredObject? {
        let route = route(key)
        do {
            let head = try answer(key, "HEAD", route, stop: stop)
            if head.status == 200 { return described(key, head) }
            // Servers that know no HEAD, or URLs signed for GET alone. A server that ignores the range sends everything, and
            // the limit ends that: the file is then read without being known beforehand.
            let first = try answer(
                key, "GET", route, headers: [("Range", RangeSource.header(0..<1))], limit: 64 << 10, stop: stop)
            return described(key, first)
        } catch StoreError.absent {
            return nil
        }
    }

    private func described(_ key: String, _ response: HTTPResponse) -> StoredObject {
        let total = response.header("Content-Range").flatMap { $0.split(separator: "/").last }.flatMap { Int64($0) }
        let length = response.status == 200 ? response.header("Content-Length").flatMap { Int64($0) } : nil
        let etag = response.header("ETag").flatMap { ETag.isStrong($0) ? $0 : nil }
        return StoredObject(
            key: key, size: total ?? length, modified: response.header("Last-Modified").flatMap { ServerTime.http($0) },
            etag: etag, version: etag == nil ? response.header("Last-Modified") : nil)
    }

    public func read(key: String, limit: Int, stop: StopFlag) throws -> [UInt8]? {
        do {
            let response = try answer(key, "GET", route(key), limit: max(limit, 64 << 10), shownLimit: limit, stop: stop)
            guard response.body.count <= limit else { throw StoreError.tooLarge(object: shown(key), limit: limit) }
            return response.body
        } catch StoreError.absent {
            return nil
        }
    }

    public func open(
        _ object: StoredObject, from offset: Int64, memory: ByteCount, stop: StopFlag, progress: @escaping ProgressHandler
    ) throws -> any ByteSource {
        let shown = shown(object.key)
        let route = route(object.key)
        let source = RangeSource(name: shown, isPinned: object.etag != nil || object.version != nil) { range in
            var headers: [(name: String, value: String)] = []
            if let range { headers.append(("Range", RangeSource.header(range))) }
            if let etag = object.etag {
                headers.append(("If-Match", etag))
            } else if let version = object.version {
                headers.append(("If-Unmodified-Since", version))
            }
            return Self.attempt("GET", route, headers: headers, shown: shown) { response in
                if let etag = object.etag {
                    guard let got = response.header("ETag"), ETag.areSame(etag, got) else {
                        return .fail(StoreError.replaced(object: shown))
                    }
                } else if let version = object.version, response.header("Last-Modified") != version {
                    return .fail(StoreError.replaced(object: shown))
                }
                return .accept
            } missing: {
                StoreError.removed(object: shown)
            }
        } wrap: {
            StoreError.unreachable(object: shown, $0)
        }
        return try RangedDownload(
            source, size: object.size, from: offset, connections: options.connections, memory: memory,
            retry: options.retry, environment: options.environment, stop: stop, progress: progress)
    }

    private func shown(_ key: String) -> String { location + Printable.text(String(key.prefix { $0 != "?" })) }

    private func route(_ key: String) -> Route {
        var address = origin
        address.path = "/" + key
        address.query = query?.revealedText
        return Route(address)
    }

    private func answer(
        _ key: String, _ method: String, _ route: Route, headers: [(name: String, value: String)] = [],
        limit: Int = 8 << 20, shownLimit: Int? = nil, stop: StopFlag
    ) throws -> HTTPResponse {
        let object = shown(key)
        return try exchange.answer(object, stop: stop) { failure in
            if case .tooLarge = failure.kind { return StoreError.tooLarge(object: object, limit: shownLimit ?? limit) }
            return StoreError.unreachable(object: object, failure)
        } attempt: {
            var attempt = Self.attempt(method, route, headers: headers, shown: object) { _ in .accept } missing: {
                StoreError.absent(object: object)
            }
            attempt.request.bodyLimit = limit
            guard method == "HEAD" else { return attempt }
            let judge = attempt.judge
            attempt.judge = { response in
                [400, 401, 403, 404, 405, 501].contains(response.status) ? .accept : judge(response)
            }
            return attempt
        }
    }

    private static func attempt(
        _ method: String, _ route: Route, headers: [(name: String, value: String)], shown: String,
        accept: @escaping @Sendable (HTTPResponse) -> RangeSource.Verdict, missing: @escaping @Sendable () -> StoreError
    ) -> RangeSource.Attempt {
        let sent = route.state.withLock { $0.address }
        return RangeSource.Attempt(request: HTTPRequest(method, sent.text, headers: headers)) { response in
            switch response.status {
            case 200, 206: return accept(response)
            case 301, 302, 303, 307, 308: return follow(response, from: sent, route, shown)
            case _ where RetryPolicy.isLater(status: response.status):
                return .later(
                    after: RetryPolicy.hint(response),
                    error: StoreError.unavailable(
                        object: shown, status: response.status, code: "status \(response.status)", requestID: nil))
            case let status where sent != route.start && [400, 401, 403, 404, 410].contains(status):
                // A place that was only lent (a signed URL that expires): the start is asked again, within the hops.
                let isReset = route.state.withLock { state in
                    guard state.address == sent, state.hops < mostRedirects else { return state.address != sent }
                    state.address = route.start
                    state.hops += 1
                    return true
                }
                return isReset ? .again : .fail(refusal(status, shown, missing))
            default: return .fail(refusal(response.status, shown, missing))
            }
        }
    }

    private static func refusal(_ status: Int, _ shown: String, _ missing: () -> StoreError) -> StoreError {
        switch status {
        case 404, 410: missing()
        case 412, 416: .replaced(object: shown)
        case 401, 403:
            .accessDenied(
                action: "read it", object: shown, code: "status \(status)", requestID: nil, credentials: "anonymous requests")
        default: .unexpectedAnswer(object: shown, reason: "status \(status)")
        }
    }

    private static func follow(
        _ response: HTTPResponse, from sent: WebAddress, _ route: Route, _ shown: String
    ) -> RangeSource.Verdict {
        guard let target = response.header("Location"), let next = sent.following(target),
            !(sent.scheme == "https" && next.scheme == "http")
        else {
            let place = HTTPRequest.withoutQuery(response.header("Location") ?? "nowhere")
            return .fail(StoreError.redirected(object: shown, to: place))
        }
        return route.state.withLock { state in
            // Another request was faster.
            if state.address != sent { return .again }
            guard state.hops < mostRedirects else { return .fail(StoreError.tooManyRedirects(object: shown)) }
            state.hops += 1
            state.address = next
            return .again
        }
    }
}
