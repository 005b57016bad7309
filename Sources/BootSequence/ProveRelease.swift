public import HostSystem

/// Asks the web server, through the real virtual host, whether it serves this release: first the token that only the new
/// configuration knows, read by PHP through FPM, then the page the site itself names.
public struct ProveRelease: Sendable {
    public struct Probe: Sendable, Equatable, Codable {
        public var url: String
        public var expect: Int
        public var contains: String?
        /// For the whole proof: a service that has just been reloaded may need a moment.
        public var timeout: Duration
        /// `HOST:PORT` to connect to, so that the proof asks this front and not the load balancer the name leads to.
        public var connectTo: String
        /// Nil where the site's own virtual host serves no token.
        public var releasePath: String?

        public init(
            url: String, expect: Int = 200, contains: String? = nil, timeout: Duration = .seconds(10),
            connectTo: String,
            releasePath: String? = "/amorce/release"
        ) {
            self.url = url
            self.expect = expect
            self.contains = contains
            self.timeout = timeout
            self.connectTo = connectTo
            self.releasePath = releasePath
        }
    }

    public enum Answer: Error, Sendable, Equatable, CustomStringConvertible {
        case wrongStatus(url: String, expected: Int, got: Int, shows: String)
        case wrongRelease(url: String, expected: String, got: String)
        case missingText(url: String, text: String, shows: String)
        case noAnswer(url: String, reason: String)

        public var description: String {
            switch self {
            case .wrongStatus(let url, let expected, let got, let shows):
                "\(url) answered \(got), expected \(expected)" + (shows.isEmpty ? "" : "; the page says: \(shows)")
            case .wrongRelease(let url, let expected, let got):
                "\(url) is served by \(got), expected release \(expected)"
            case .missingText(let url, let text, let shows):
                "\(url) does not contain \"\(Printable.text(text))\"; the page says: \(shows)"
            case .noAnswer(let url, let reason): "\(url): \(reason)"
            }
        }
    }

    private let transport: any HTTPTransport
    private let probe: Probe
    /// While a web server reloads gracefully, workers of both generations accept connections for some milliseconds. One right
    /// answer is luck; so many in a row, each on a connection of its own, over a third of a second, are the new generation.
    private static let answersInARow = 10

    public init(_ probe: Probe, transport: any HTTPTransport) {
        self.probe = probe
        self.transport = transport
    }

    /// Returns when both answers are right; throws the last wrong `Answer` when the probe's time is over.
    public func prove(_ release: ReleaseRecord, stop: StopFlag) throws {
        let end = ContinuousClock.now.advanced(by: probe.timeout)
        var pause = Duration.milliseconds(50)
        while true {
            do {
                for _ in 0..<Self.answersInARow {
                    try askToken(release, stop: stop)
                    try stop.sleep(.milliseconds(30))
                }
                return try askPage(stop: stop)
            } catch let wrong as Answer {
                if ContinuousClock.now.advanced(by: pause) >= end { throw wrong }
            }
            try stop.sleep(pause)
            pause = min(pause * 2, .seconds(1))
        }
    }

    /// The same questions where only one generation can answer: `released` is called once the token was right, and everything
    /// after that is the site's own answer.
    func rehearse(_ release: ReleaseRecord, stop: StopFlag, released: () -> Void, isOver: () -> Bool) throws {
        let end = ContinuousClock.now.advanced(by: probe.timeout)
        while true {
            do {
                try askToken(release, stop: stop)
                released()
                return try askPage(stop: stop)
            } catch let wrong as Answer {
                if ContinuousClock.now >= end || isOver() { throw wrong }
            }
            try stop.sleep(.milliseconds(50))
        }
    }

    private func askToken(_ release: ReleaseRecord, stop: StopFlag) throws {
        guard let path = probe.releasePath else { return }
        let url = Self.origin(of: probe.url) + path
        let response = try get(url, stop: stop)
        guard response.status == 200 else {
            throw Answer.wrongStatus(url: url, expected: 200, got: response.status, shows: Self.excerpt(response))
        }
        guard let answer = try? RunRecorder.decode(TokenAnswer.self, from: response.body), answer.token == release.token
        else {
            let other = (try? RunRecorder.decode(TokenAnswer.self, from: response.body))?.release
            throw Answer.wrongRelease(
                url: url, expected: release.identifier,
                got: other.map { "release " + Printable.text($0, limit: 40) } ?? "something that gives no release token"
            )
        }
    }

    private struct TokenAnswer: Decodable {
        let release: String?
        let token: String
    }

    private func askPage(stop: StopFlag) throws {
        let response = try get(probe.url, stop: stop)
        guard response.status == probe.expect else {
            throw Answer.wrongStatus(
                url: HTTPRequest.withoutQuery(probe.url), expected: probe.expect, got: response.status,
                shows: Self.excerpt(response))
        }
        if let text = probe.contains, !response.text.contains(text) {
            throw Answer.missingText(
                url: HTTPRequest.withoutQuery(probe.url), text: text, shows: Self.excerpt(response))
        }
    }

    private func get(_ url: String, stop: StopFlag) throws -> HTTPResponse {
        let request = HTTPRequest(
            "GET", url, headers: [("Cache-Control", "no-cache"), ("Connection", "close")], connectTimeout: .seconds(2),
            timeout: probe.timeout,
            allowsProxy: false, bodyLimit: 16 << 20, connectTo: probe.connectTo)
        do {
            return try transport.perform(request, stop: stop)
        } catch let stopped as StopReason {
            throw stopped
        } catch {
            throw Answer.noAnswer(url: HTTPRequest.withoutQuery(url), reason: "\(error)")
        }
    }

    /// `http://host:port` of a URL.
    static func origin(of url: String) -> String {
        let parts = url.split(separator: "/", maxSplits: 3, omittingEmptySubsequences: false)
        guard parts.count >= 3 else { return url }
        return "\(parts[0])//" + parts[2].prefix { $0 != "?" && $0 != "#" }
    }

    /// What a person would read first on the page: its text without the tags, one line.
    static func excerpt(_ response: HTTPResponse) -> String {
        var isTag = false
        var words = ""
        for character in String(decoding: response.body.prefix(16 << 10), as: UTF8.self) {
            switch character {
            case "<": isTag = true
            case ">":
                isTag = false
                words.append(" ")
            default: if !isTag { words.append(character) }
            }
        }
        let line = words.split { $0.isWhitespace }.joined(separator: " ")
        return Printable.text(line, limit: 160)
    }
}
