internal import HostSystem
internal import Synchronization

/// What requests to one bucket have in common, and what they learn from answers: the bucket's region, the server's
/// clock, whether the credentials are still good. Each of these is corrected once; the same complaint about a corrected
/// request is final. Safe from any thread: several requests are under way at once, and each knows with what it was
/// signed, so that ten complaints about one old token ask for fresh credentials once.
final class S3Session: Sendable {
    struct State: Sendable, Equatable {
        var region: String
        var hasMoved = false
        /// The server's clock minus ours, in seconds.
        var clockOffset: Int64 = 0
        /// How often fresh credentials were asked for.
        var generation = 0
        /// Whether this generation was accepted once.
        var isAccepted = false
        /// The server knows no `If-None-Match` on writes.
        var lacksConditions = false
    }

    /// With what a request was signed.
    struct Signing: Sendable, Equatable {
        var state: State
        var time: Int64
        /// Whose credentials; nil for an anonymous request.
        var origin: String?
    }

    enum Operation: Sendable, Equatable {
        case list
        case read(key: String, version: String?)
        /// An object, or any step of its upload in parts but the giving up.
        case put(key: String)
        /// The bytes of `source` as a part of `key`. That the role may put has shown by then.
        case copy(key: String, source: String, version: String?)
        case abort(key: String)
        case remove(key: String)

        /// "Required permissions for Amazon S3 API operations" in the Amazon S3 User Guide.
        var action: String {
            switch self {
            case .list: "s3:ListBucket"
            case .read(_, let version), .copy(_, _, let version):
                version == nil ? "s3:GetObject" : "s3:GetObjectVersion"
            case .put: "s3:PutObject"
            case .abort: "s3:AbortMultipartUpload"
            case .remove: "s3:DeleteObject"
            }
        }

        /// What the request's URL names; empty for the bucket.
        var key: String {
            switch self {
            case .list: ""
            case .read(let key, _), .put(let key), .copy(let key, _, _), .abort(let key), .remove(let key): key
            }
        }

        var isWriting: Bool {
            switch self {
            case .list, .read: false
            case .put, .copy, .abort, .remove: true
            }
        }
    }

    /// What a request carries, and how long it may take.
    struct Load: Sendable {
        var bytes: [UInt8]?
        /// The SHA-256 of `bytes`, so that a repetition does not compute it again.
        var sha256: [UInt8]?
        var timeout = Duration.seconds(30)
        var idle: Duration?
        /// It must not reach the store twice without our knowing.
        var isOnce = false
    }

    let bucket: String
    private let custom: String?
    private let environment: [String: String]
    private let provider: any CredentialProvider
    private let isAnonymous: Bool
    private let clock: @Sendable () -> Int64
    private let log: Log
    private let state: Mutex<State>

    init(
        bucket: String, region: String, custom: String?, environment: [String: String],
        provider: any CredentialProvider,
        isAnonymous: Bool, clock: @escaping @Sendable () -> Int64, log: Log
    ) {
        self.bucket = bucket
        self.custom = custom
        self.environment = environment
        self.provider = provider
        self.isAnonymous = isAnonymous
        self.clock = clock
        self.log = log
        state = Mutex(State(region: region))
    }

    /// Some server of its own, and not Amazon's.
    var isCustom: Bool { custom != nil }

    /// Learnt from a server that answers 501 to the header.
    var lacksConditions: Bool {
        get { state.withLock { $0.lacksConditions } }
        set { state.withLock { $0.lacksConditions = newValue } }
    }

    func object(_ key: String) -> String { "s3://\(bucket)/" + Printable.text(key) }

    /// One signed request, and the judge of its answer. `accept` has a word on good answers; `complaint` on those errors
    /// that are about what was asked and not about how (region, clock, credentials); it is called inside the session's lock.
    func attempt(
        _ operation: Operation, method: String = "GET", query: [(String, String)] = [],
        headers: [(name: String, value: String)] = [], load: Load = Load(), bodyLimit: Int = 8 << 20, stop: StopFlag,
        accept: @escaping @Sendable (HTTPResponse) -> RangeSource.Verdict = { _ in .accept },
        complaint: @escaping @Sendable (S3Problem) -> RangeSource.Verdict? = { _ in nil }
    ) throws -> RangeSource.Attempt {
        var signing = Signing(state: state.withLock { $0 }, time: 0, origin: nil)
        let endpoint = try S3Endpoint(
            bucket: bucket, region: signing.state.region, custom: custom, environment: environment)
        var request = HTTPRequest(
            method, endpoint.url(key: operation.key, query: query), headers: headers, body: load.bytes,
            timeout: load.timeout, bodyLimit: bodyLimit, idle: load.idle, needsFreshConnection: load.isOnce)
        let credentials = isAnonymous ? nil : try provider.credentials(stop: stop)
        signing.time = clock() + signing.state.clockOffset
        if let credentials {
            signing.origin = credentials.origin
            request = SigV4(service: "s3", region: signing.state.region, dialect: .s3)
                .sign(request, with: credentials, at: signing.time, payload: load.sha256?.hex)
        }
        return RangeSource.Attempt(request: request) { [self, signing] response in
            judge(response, signing, operation, accept: accept, complaint: complaint)
        }
    }

    private func judge(
        _ response: HTTPResponse, _ signing: Signing, _ operation: Operation,
        accept: (HTTPResponse) -> RangeSource.Verdict, complaint: (S3Problem) -> RangeSource.Verdict?
    ) -> RangeSource.Verdict {
        let problem = S3Problem(response)
        // S3 may begin with 200 before it knows that it will fail; the document then says so.
        if (200..<300).contains(response.status) && problem.code.isEmpty {
            state.withLock { if $0.generation == signing.state.generation { $0.isAccepted = true } }
            return accept(response)
        }
        let decision = state.withLock { state in
            let decision = decide(problem, signing, operation, &state, complaint)
            // Before anybody can sign as the new generation: else another connection would sign with the old keys, be refused,
            // and take the fresh ones for refused.
            if decision.isRefused { provider.invalidate() }
            return decision
        }
        if decision.isRefused { log.notice("\(bucket): \(problem.shownCode): asking for fresh credentials") }
        if let note = decision.note { log.notice("\(bucket): \(note)") }
        return decision.verdict
    }

    struct Decision {
        var verdict: RangeSource.Verdict
        /// The credentials are to be dropped.
        var isRefused = false
        var note: String?
    }

    /// What a complaint means, given what the request was signed with and what is known by now.
    private func decide(
        _ problem: S3Problem, _ signing: Signing, _ operation: Operation, _ state: inout State,
        _ complaint: (S3Problem) -> RangeSource.Verdict?
    ) -> Decision {
        if problem.isRegion { return region(problem, signing, operation, &state) }
        if let decision = skew(problem, signing, operation, &state) { return decision }
        if problem.isCredentials { return credentials(problem, signing, operation, &state) }
        if let verdict = complaint(problem) { return Decision(verdict: verdict) }
        if problem.isLater {
            return Decision(
                verdict: .later(
                    after: problem.retryAfter,
                    error: StoreError.unavailable(
                        object: shown(operation), status: problem.status, code: problem.shownCode,
                        requestID: problem.requestID)))
        }
        return Decision(verdict: .fail(error(problem, signing, operation)))
    }

    private func region(
        _ problem: S3Problem, _ signing: Signing, _ operation: Operation, _ state: inout State
    ) -> Decision {
        guard let told = problem.region else {
            return Decision(verdict: .fail(StoreError.redirected(object: shown(operation), to: "an unnamed place")))
        }
        // Another request has learnt it meanwhile.
        if state.region != signing.state.region { return Decision(verdict: .again) }
        let wrong = StoreError.wrongRegion(bucket: bucket, asked: signing.state.region, told: told)
        // The next host is made from the region's name by our own rules, never from the answer, and stays in the
        // partition.
        guard !state.hasMoved, told != state.region, S3Endpoint.suffix(of: told) == S3Endpoint.suffix(of: state.region)
        else { return Decision(verdict: .fail(wrong)) }
        state.region = told
        state.hasMoved = true
        return Decision(verdict: .again, note: "is in \(told), not in \(signing.state.region)")
    }

    /// S3 takes signatures within 15 minutes; as the AWS SDKs do, a clock is corrected when it is off by more than 4
    /// minutes. Servers call it by different codes (RequestTimeTooSkewed, AccessDenied, none for a HEAD), so the Date
    /// header decides.
    private func skew(
        _ problem: S3Problem, _ signing: Signing, _ operation: Operation, _ state: inout State
    ) -> Decision? {
        guard signing.origin != nil, problem.status == 403 || problem.status == 400, let date = problem.date else {
            return nil
        }
        if abs(date - signing.time) > 240 {
            if state.clockOffset != signing.state.clockOffset { return Decision(verdict: .again) }
            if state.clockOffset == 0 {
                state.clockOffset = date - clock()
                return Decision(
                    verdict: .again,
                    note: "the clock here is wrong by \(Duration.seconds(abs(state.clockOffset)).spoken); "
                        + "signing with the server's time")
            }
        }
        guard problem.code == "RequestTimeTooSkewed" else { return nil }
        return Decision(
            verdict: .fail(StoreError.clockSkew(object: shown(operation), seconds: date - clock())))
    }

    private func credentials(
        _ problem: S3Problem, _ signing: Signing, _ operation: Operation, _ state: inout State
    ) -> Decision {
        if state.generation != signing.state.generation { return Decision(verdict: .again) }
        guard signing.origin != nil, state.generation == 0 || state.isAccepted else {
            return Decision(verdict: .fail(refused(problem, signing, operation)))
        }
        state.generation += 1
        state.isAccepted = false
        return Decision(verdict: .again, isRefused: true)
    }

    private func refused(_ problem: S3Problem, _ signing: Signing, _ operation: Operation) -> StoreError {
        .credentialsRefused(
            object: shown(operation), code: problem.shownCode, requestID: problem.requestID,
            credentials: who(signing))
    }

    private func error(_ problem: S3Problem, _ signing: Signing, _ operation: Operation) -> StoreError {
        let object = shown(operation)
        switch problem.code {
        case "NoSuchBucket": return .noSuchBucket(bucket: bucket, requestID: problem.requestID)
        case "NoSuchKey" where !operation.isWriting, "NoSuchVersion" where !operation.isWriting:
            return .absent(object: object)
        case "SignatureDoesNotMatch", "InvalidSecurity": return refused(problem, signing, operation)
        default: break
        }
        switch problem.status {
        // A delete marker asked by its version answers 405.
        case 404 where !operation.isWriting, 405 where !operation.isWriting: return .absent(object: object)
        case 412 where !operation.isWriting, 416 where !operation.isWriting: return .replaced(object: object)
        case 401, 403:
            return .accessDenied(
                action: operation.action, object: object, code: problem.shownCode, requestID: problem.requestID,
                credentials: who(signing))
        default:
            // rclone's server refuses an anonymous request with 400 and such a code.
            if problem.code == "AccessDenied" || (signing.origin == nil && problem.status == 400) {
                return .accessDenied(
                    action: operation.action, object: object, code: problem.shownCode, requestID: problem.requestID,
                    credentials: who(signing))
            }
            if operation.isWriting { return .cannotUpload(object: object, reason: problem.told) }
            return .unexpectedAnswer(
                object: object,
                reason: problem.shownCode + (problem.message.isEmpty ? "" : ": \(problem.message)"))
        }
    }

    private func who(_ signing: Signing) -> String {
        signing.origin.map { "the credentials of \($0)" } ?? "anonymous requests"
    }

    private func shown(_ operation: Operation) -> String {
        switch operation {
        case .list: "s3://\(bucket)/"
        case .copy(_, let source, _): object(source)
        case .read(let key, _), .put(let key), .abort(let key), .remove(let key): object(key)
        }
    }
}
