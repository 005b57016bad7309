public import HostSystem
internal import Synchronization

/// The EC2 instance metadata service, version 2 alone: every request carries a session token, and where no token is to be had
/// nothing is asked without one. A request that has no answer, or a 429 or 5xx, is repeated with growing, scattered waits until
/// `patience` has passed. Nothing goes through a proxy. Blocking; safe from any thread.
///
/// Protocol: Amazon EC2 User Guide, "Use the Instance Metadata Service to access instance metadata" and "Retrieve instance
/// metadata".
public final class EC2Metadata: MetadataProvider, Sendable {
    /// The longest that the service grants; it is per instance and costs nothing to hold.
    static let tokenLifetime = 21600
    /// EC2 itself takes 16 KiB, before base64; whatever else answers at that address is bounded too.
    public static let userDataLimit = 64 << 10

    private struct Session: Sendable {
        var token: Secret?
        var validUntil = Duration.zero
        var hasAnswered = false
    }

    public let name = "EC2 instance metadata"
    private let transport: any HTTPTransport
    private let endpoint: Result<MetadataEndpoint, MetadataProblem>
    /// Switched off by AWS_EC2_METADATA_DISABLED: `read` says that this is no EC2, `get` throws.
    public let isSwitchedOff: Bool
    private let patience: Duration
    private let log: Log
    private let pacing: MetadataPacing
    private let session = Mutex(Session())

    /// `patience` is how long one call waits for a service that does not answer or fails. An environment variable that cannot
    /// be understood is reported by the first call.
    public convenience init(transport: any HTTPTransport, environment: [String: String], patience: Duration, log: Log) {
        self.init(transport: transport, environment: environment, patience: patience, log: log, pacing: .real)
    }

    init(
        transport: any HTTPTransport, environment: [String: String], patience: Duration, log: Log,
        pacing: MetadataPacing
    ) {
        self.transport = transport
        endpoint = Result { () throws(MetadataProblem) in try MetadataEndpoint(environment: environment) }
        isSwitchedOff = MetadataEndpoint.isDisabled(environment)
        self.patience = patience
        self.log = log
        self.pacing = pacing
    }

    // MARK: Identity

    public func read(stop: StopFlag) throws -> InstanceData? {
        guard !isSwitchedOff else { return nil }
        let end = pacing.now() + patience
        let endpoint = try endpoint.get()
        do {
            let identity = try readIdentity(until: end, stop: stop)
            let userData = try get("/latest/user-data", limit: Self.userDataLimit, until: end, stop: stop)
            return InstanceData(
                identity: identity, userData: userData.flatMap { $0.isEmpty ? nil : Secret(bytes: $0) },
                source: "\(name) at \(endpoint.url)")
        } catch MetadataProblem.foreign {
            return nil
        }
    }

    private func readIdentity(until end: Duration, stop: StopFlag) throws -> InstanceIdentity {
        func item(_ name: String, _ shape: MetadataShape) throws -> String? {
            try text("/latest/meta-data/" + name, shape, until: end, stop: stop)
        }
        guard let id = try item("instance-id", .instance) else { throw MetadataProblem.absent(path: "instance-id") }
        let document = try identityDocument(of: id, until: end, stop: stop)
        let zone = try item("placement/availability-zone", .word)
        let region = try item("placement/region", .word)
        // A subnet may have IPv6 alone: then there is no local-ipv4.
        let address = try item("local-ipv4", .ipv4) ?? item("ipv6", .ipv6)
        let type = try item("instance-type", .word)
        let image = try item("ami-id", .word)
        return InstanceIdentity(
            platform: .ec2, id: id, region: region ?? document["region"], zone: zone ?? document["availabilityZone"],
            address: address ?? document["privateIp"], type: type ?? document["instanceType"],
            image: image ?? document["imageId"], account: document["accountId"],
            tags: try tags(until: end, stop: stop),
            autoscalingTargetState: try item("autoscaling/target-lifecycle-state", .state))
    }

    /// The members of the identity document that are used, each checked; empty where there is none.
    private func identityDocument(of id: String, until end: Duration, stop: StopFlag) throws -> [String: String] {
        let path = "/latest/dynamic/instance-identity/document"
        guard let body = try get(path, until: end, stop: stop) else { return [:] }
        guard let members = JSONDocument(body)?.object else {
            throw MetadataProblem.malformed(item: "identity document", why: "it is not a JSON object")
        }
        let shapes: [(String, MetadataShape)] = [
            ("instanceId", .instance), ("region", .word), ("availabilityZone", .word), ("privateIp", .ipv4),
            ("instanceType", .word), ("imageId", .word), ("accountId", .account),
        ]
        var result: [String: String] = [:]
        for (key, shape) in shapes {
            guard let value = members[key]?.text else { continue }
            result[key] = try shape.checked(value, item: "identity document: \(key)")
        }
        if let other = result["instanceId"], other != id {
            throw MetadataProblem.malformed(
                item: "identity document", why: "it is of \(other), and this instance is \(id)")
        }
        return result
    }

    /// Empty where the instance does not allow tags in its metadata, or has none.
    private func tags(until end: Duration, stop: StopFlag) throws -> [String: String] {
        let path = "/latest/meta-data/tags/instance"
        guard let listing = try get(path, until: end, stop: stop) else {
            log.detail("no tags: this instance does not show its tags in its metadata")
            return [:]
        }
        let keys = String(decoding: listing, as: UTF8.self).split(whereSeparator: \.isNewline).map(String.init)
        // AWS allows 50 tags.
        guard keys.count <= 200 else {
            throw MetadataProblem.malformed(item: "list of tags", why: "\(keys.count) of them")
        }
        var result: [String: String] = [:]
        for key in keys {
            // EC2 refuses other keys while tags are shown in the metadata; one with a slash would ask for another item.
            guard MetadataShape.tagKey.accepts(key) else {
                log.warning("the tag \(Printable.text(key, limit: 128)) is left out: its name cannot be asked for")
                continue
            }
            guard let value = try get(path + "/" + key, until: end, stop: stop) else { continue }
            guard let text = String(validating: value, as: UTF8.self) else {
                log.warning("the tag \(key) is left out: its value is not UTF-8")
                continue
            }
            result[key] = text
        }
        return result
    }

    private func text(_ path: String, _ shape: MetadataShape, until end: Duration, stop: StopFlag) throws -> String? {
        guard let body = try get(path, limit: 4096, until: end, stop: stop) else { return nil }
        var text = String(decoding: body, as: UTF8.self)
        if text.hasSuffix("\n") { text.removeLast() }
        return try shape.checked(text, item: path)
    }

    // MARK: Items

    /// One item, or nil where there is none (404). `path` starts with `/latest/`. Throws `StopReason` or `MetadataProblem`.
    public func get(_ path: String, limit: Int = 64 << 10, stop: StopFlag) throws -> [UInt8]? {
        try get(path, limit: limit, until: pacing.now() + patience, stop: stop)
    }

    /// The same with other patience than the usual; zero asks once.
    func get(_ path: String, limit: Int = 64 << 10, patience: Duration, stop: StopFlag) throws -> [UInt8]? {
        try get(path, limit: limit, until: pacing.now() + patience, stop: stop)
    }

    private func get(_ path: String, limit: Int = 64 << 10, until end: Duration, stop: StopFlag) throws -> [UInt8]? {
        guard !isSwitchedOff else { throw MetadataProblem.switchedOff }
        guard MetadataShape.path.accepts(path) else {
            throw MetadataProblem.malformed(item: "path", why: "\(Printable.text(path)) is no metadata item")
        }
        var isRenewed = false
        while true {
            let token = try token(until: end, stop: stop)
            let headers = [(name: "X-aws-ec2-metadata-token", value: token.revealedText ?? "")]
            let response = try answer("GET", path, headers: headers, limit: limit, until: end, stop: stop)
            switch response.status {
            case 200:
                if response.body.count > limit { throw MetadataProblem.tooLarge(item: path, limit: limit) }
                return response.body
            case 404:
                return nil
            case 401 where !isRenewed:
                // Expired, or the service was restarted and knows it no more. One new token: a second refusal is no accident.
                isRenewed = true
                forget(token)
            case 401:
                throw MetadataProblem.tokenRefused(path: path)
            case 403:
                throw MetadataProblem.forbidden(path: path)
            default:
                throw MetadataProblem.unexpected(path: path, status: response.status)
            }
        }
    }

    private func forget(_ token: Secret) {
        session.withLock { if $0.token == token { $0.token = nil } }
    }

    private func token(until end: Duration, stop: StopFlag) throws -> Secret {
        let now = pacing.now()
        if let held = session.withLock({ now < $0.validUntil ? $0.token : nil }) { return held }
        let headers = [(name: "X-aws-ec2-metadata-token-ttl-seconds", value: String(Self.tokenLifetime))]
        let path = "/latest/api/token"
        let response = try answer("PUT", path, headers: headers, limit: 4096, until: end, stop: stop)
        let endpoint = try endpoint.get().url
        switch response.status {
        case 200: break
        case 403: throw MetadataProblem.disabled(endpoint: endpoint)
        // OpenStack serves EC2's paths and has no tokens: nova answers 404, a plain web server 405 or 501.
        case 404, 405, 501: throw MetadataProblem.foreign(endpoint: endpoint)
        default: throw MetadataProblem.unexpected(path: path, status: response.status)
        }
        var text = response.text
        if text.hasSuffix("\n") { text.removeLast() }
        guard MetadataShape.token.accepts(text) else {
            throw MetadataProblem.malformed(
                item: "session token", why: "\(response.body.count) bytes that are no token")
        }
        let granted = response.header("X-aws-ec2-metadata-token-ttl-seconds").flatMap { Int($0) } ?? Self.tokenLifetime
        let lifetime = min(max(granted, 1), Self.tokenLifetime)
        let token = Secret(text)
        session.withLock {
            $0.token = token
            // A little early, so that the token does not expire under way.
            $0.validUntil = now + .seconds(max(lifetime - 30, lifetime / 2))
        }
        return token
    }

    // MARK: Retrying

    /// The first answer that is neither 429 nor a passing failure of the server.
    private func answer(
        _ method: String, _ path: String, headers: [(name: String, value: String)], limit: Int, until end: Duration,
        stop: StopFlag
    ) throws -> HTTPResponse {
        let request = HTTPRequest(
            method, try endpoint.get().url + path, headers: headers, body: method == "PUT" ? [] : nil,
            connectTimeout: pacing.connectTimeout, timeout: pacing.answerTimeout, allowsProxy: false, bodyLimit: limit)
        var attempts = 0
        var oddFailures = 0
        while true {
            try stop.check()
            let began = pacing.now()
            let problem: MetadataProblem
            do {
                let response = try transport.perform(request, stop: stop)
                session.withLock { $0.hasAnswered = true }
                guard RetryPolicy.isLater(status: response.status) else { return response }
                problem = .failing(path: path, status: response.status)
            } catch let reason as StopReason {
                throw reason
            } catch {
                try stop.check()
                let failure = error as? any HTTPTransportFailure
                if failure?.isTooLarge == true { throw MetadataProblem.tooLarge(item: path, limit: limit) }
                problem = try explain(error, failure, method, path, elapsed: pacing.now() - began)
                // Neither silence nor a closed port: a reset, an answer that is no HTTP. A few times, not until the end.
                if let failure, !failure.isTimeout, !failure.isRefused { oddFailures += 1 }
            }
            attempts += 1
            let wait = pacing.delay(after: attempts)
            let isHopeless = oddFailures >= 5 && session.withLock { $0.hasAnswered }
            if isHopeless || pacing.now() + wait >= end { throw problem }
            if attempts == 3 {
                log.notice("\(problem); trying again for \((end - pacing.now()).spoken)")
            } else {
                log.detail("\(problem); trying again")
            }
            try pacing.sleep(wait, stop)
        }
    }

    private func explain(
        _ error: any Error, _ failure: (any HTTPTransportFailure)?, _ method: String, _ path: String, elapsed: Duration
    ) throws -> MetadataProblem {
        let reason = Printable.text(String(describing: error))
        if session.withLock({ $0.hasAnswered }) { return .silent(path: path, reason: reason) }
        let endpoint = try endpoint.get().url
        // The service sends the answer to a PUT with the instance's hop limit, 1 by default: behind one more hop (a container's
        // bridge) it is lost, while connections and, with version 1, a GET work.
        let mayBeTimeout = failure?.isTimeout ?? true
        if method == "PUT", mayBeTimeout, pacing.hadConnection(elapsed) { return .hopLimit(endpoint: endpoint) }
        return .unreachable(endpoint: endpoint, reason: reason)
    }
}
