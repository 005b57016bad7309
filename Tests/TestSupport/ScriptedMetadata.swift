public import HostSystem
import Synchronization

/// A failure as a transport reports one.
public struct ScriptedFailure: HTTPTransportFailure {
    public var isTimeout = false
    public var isRefused = false
    public var isTooLarge = false
    public var description: String
}

/// An error of which nobody knows anything.
public struct UnknownFailure: Error {}

/// The EC2 metadata service in memory, as strict as the real one about session tokens, with a clock that only sleeps and
/// timeouts move. Faults are given per `METHOD path` and used up in order before the item itself is served.
public final class ScriptedMetadata: HTTPTransport, Sendable {
    public indirect enum Step: Sendable {
        case answer(Int, String = "")
        case refused, connectTimeout, answerTimeout, reset, tooLarge, unknown
        /// From here on, this step for every further request of that method and path.
        case forever(Step)
    }

    private struct State {
        var now = Duration.zero
        var items: [String: [UInt8]]
        var steps: [String: [Step]] = [:]
        var requests: [HTTPRequest] = []
        var tokens: Set<String> = []
        var issued = 0
        var onSleep: (@Sendable (Duration) -> Void)?
    }

    private let state: Mutex<State>

    public init(items: [String: String] = ScriptedMetadata.front) {
        state = Mutex(State(items: items.mapValues { Array($0.utf8) }))
    }

    /// What a front in an Auto Scaling group shows.
    public static let front = [
        "/latest/meta-data/instance-id": "i-0123456789abcdef0",
        "/latest/meta-data/placement/availability-zone": "eu-west-1a",
        "/latest/meta-data/placement/region": "eu-west-1",
        "/latest/meta-data/local-ipv4": "10.0.1.20",
        "/latest/meta-data/instance-type": "t3.small",
        "/latest/meta-data/ami-id": "ami-0fedcba9876543210",
        "/latest/meta-data/tags/instance": "Name\nEnvironment",
        "/latest/meta-data/tags/instance/Name": "front",
        "/latest/meta-data/tags/instance/Environment": "preprod",
        "/latest/meta-data/autoscaling/target-lifecycle-state": "InService",
        "/latest/meta-data/iam/security-credentials/": "front-role",
        "/latest/dynamic/instance-identity/document":
            #"{"accountId":"123456789012","instanceId":"i-0123456789abcdef0","region":"eu-west-1","pendingTime":"2026-11-24T03:00:00Z","version":"2017-09-30","billingProducts":null}"#,
        "/latest/user-data": "#amorce\napp: boutique\n",
    ]

    public func set(_ path: String, _ text: String?) {
        state.withLock { $0.items[path] = text.map { Array($0.utf8) } }
    }
    public func set(_ path: String, bytes: [UInt8]) { state.withLock { $0.items[path] = bytes } }
    public func fail(_ request: String, _ steps: [Step]) { state.withLock { $0.steps[request] = steps } }
    public func onSleep(_ action: @escaping @Sendable (Duration) -> Void) { state.withLock { $0.onSleep = action } }
    /// Every token issued so far is unknown from now on, as after the service was restarted.
    public func forgetTokens() { state.withLock { $0.tokens = [] } }

    public var requests: [HTTPRequest] { state.withLock { $0.requests } }
    public func count(_ method: String) -> Int { requests.count { $0.method == method } }
    public var now: Duration { state.withLock { $0.now } }

    public func sleep(_ duration: Duration, _ stop: StopFlag) throws {
        let action = state.withLock {
            $0.now += duration
            return $0.onSleep
        }
        action?(duration)
        try stop.check()
    }

    public func perform(_ request: HTTPRequest, stop: StopFlag) throws -> HTTPResponse {
        try stop.check()
        let path = request.url.firstRange(of: "/latest/").map { String(request.url[$0.lowerBound...]) } ?? request.url
        let key = "\(request.method) \(path)"
        let step: Step? = state.withLock { state in
            state.requests.append(request)
            state.now += .milliseconds(2)
            for key in [key, request.method, "*"] {
                guard let first = state.steps[key]?.first else { continue }
                if case .forever(let step) = first { return step }
                state.steps[key]?.removeFirst()
                return first
            }
            return nil
        }
        switch step {
        case .answer(let status, let body): return HTTPResponse(status: status, body: Array(body.utf8))
        case .refused: throw ScriptedFailure(isRefused: true, description: "connection refused")
        case .connectTimeout:
            state.withLock { $0.now += request.connectTimeout }
            throw ScriptedFailure(isTimeout: true, description: "no connection in time")
        case .answerTimeout:
            state.withLock { $0.now += request.timeout }
            throw ScriptedFailure(isTimeout: true, description: "no answer in time")
        case .reset: throw ScriptedFailure(description: "connection reset")
        case .tooLarge: throw ScriptedFailure(isTooLarge: true, description: "too large")
        case .unknown: throw UnknownFailure()
        case .forever, nil: return serve(request, path)
        }
    }

    private func serve(_ request: HTTPRequest, _ path: String) -> HTTPResponse {
        func header(_ name: String) -> String? { request.headers.first { $0.name.lowercased() == name }?.value }
        return state.withLock { state in
            if request.method == "PUT" {
                guard path == "/latest/api/token", header("x-forwarded-for") == nil else {
                    return HTTPResponse(status: 403)
                }
                guard let lifetime = header("x-aws-ec2-metadata-token-ttl-seconds").flatMap(Int.init),
                    (1...21600).contains(lifetime)
                else { return HTTPResponse(status: 400) }
                state.issued += 1
                let token = "MADE-UP-SECRET-token-\(state.issued)=="
                state.tokens.insert(token)
                return HTTPResponse(
                    status: 200, headers: [("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", String(lifetime))],
                    body: Array(token.utf8))
            }
            guard let token = header("x-aws-ec2-metadata-token"), state.tokens.contains(token) else {
                return HTTPResponse(status: 401, body: Array("<html>401 - Unauthorized</html>".utf8))
            }
            guard let body = state.items[path] else {
                return HTTPResponse(status: 404, body: Array("<html>404 - Not Found</html>".utf8))
            }
            return HTTPResponse(status: 200, headers: [("Content-Type", "text/plain")], body: body)
        }
    }
}
