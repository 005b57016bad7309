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

        var action: String {
            switch self {
            case .list: "s3:ListBucket"
            case .read(_, let version): version == nil ? "s3:GetObject" : "s3:GetObjectVersion"
            }
        }
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

    func object(_ key: String) -> String { "s3://\(bucket)/" + Printable.text(key) }

    /// One signed request, and the judge of its answer.
    func attempt(
        _ operation: Operation, method: String = "GET", query: [(String, String)] = [],
        headers: [(name: String, value: String)] = [], bodyLimit: Int = 8 << 20, stop: StopFlag,
        accept: @escaping @Sendable (HTTPResponse) -> RangeSource.Verdict = { _ in .accept }
    ) throws -> RangeSource.Attempt {
        var signing = Signing(state: state.withLock { $0 }, time: 0, origin: nil)
        let endpoint = try S3Endpoint(
            bucket: bucket, region: signing.state.region, custom: custom, environment: environment)
        var key = ""
        if case .read(let name, _) = operation { key = name }
        var request = HTTPRequest(
            method, endpoint.url(key: key, query: query), headers: headers, bodyLimit: bodyLimit)
        let credentials = isAnonymous ? nil : try provider.credentials(stop: stop)
        signing.time = clock() + signing.state.clockOffset
        if let credentials {
            signing.origin = credentials.origin
            request = SigV4(service: "s3", region: signing.state.region, dialect: .s3)
                .sign(request, with: credentials, at: signing.time)
        }
        return RangeSource.Attempt(request: request) { [self, signing] response in
            judge(response, signing, operation, accept: accept)
        }
    }

    private func judge(
        _ response: HTTPResponse, _ signing: Signing, _ operation: Operation,
        accept: (HTTPResponse) -> RangeSource.Verdict
    ) -> RangeSource.Verdict {
        let problem = S3Problem(response)
        // S3 may begin with 200 before it knows that it will fail; the document then says so.
        if (200..<300).contains(response.status) && problem.code.isEmpty {
            state.withLock { if $0.generation == signing.state.generation { $0.isAccepted = true } }
            return accept(response)
        }
        let decision = state.withLock { state in
            let decision = decide(problem, signing, operation, &state)
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
    private func decide(_ problem: S3Problem, _ signing: Signing, _ operation: Operation, _ state: inout State)
        -> Decision
    {
        if problem.isRegion { return region(problem, signing, operation, &state) }
        if let decision = skew(problem, signing, operation, &state) { return decision }
        if problem.isCredentials { return credentials(problem, signing, operation, &state) }
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
        case "NoSuchKey", "NoSuchVersion": return .absent(object: object)
        case "SignatureDoesNotMatch", "InvalidSecurity": return refused(problem, signing, operation)
        default: break
        }
        switch problem.status {
        // A delete marker asked by its version answers 405.
        case 404, 405: return .absent(object: object)
        case 412, 416: return .replaced(object: object)
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
        case .read(let key, _): object(key)
        }
    }
}
