public import HostSystem
internal import Synchronization

/// The credentials of the instance's role, from the metadata service, kept and renewed.
///
/// New ones appear there at least five minutes before the old expire (Amazon EC2 User Guide). From fifteen minutes before the
/// end they are asked for now and then, once each, and a failure changes nothing; from five minutes before, with patience.
/// Where the service is down, the old ones are given until they really expire. Blocking; safe from any thread: while one asks,
/// the others wait for the same answer.
public final class RoleCredentials: CredentialProvider {
    static let advisory: Int64 = 15 * 60
    static let mandatory: Int64 = 5 * 60
    /// Between two attempts to renew what is still good.
    static let interval: Int64 = 60
    static let path = "/latest/meta-data/iam/security-credentials/"

    private struct State: Sendable {
        var held: Credentials?
        /// A service has refused them.
        var isRefused = false
        /// Fresh from the service and expired already by this machine's clock: one of the two is wrong. Whoever they are shown
        /// to knows the time better, so they are given out.
        var wasBornExpired = false
        /// Not before this is renewal tried again, in seconds since 1970.
        var nextAttempt: Int64 = 0
    }

    private let metadata: EC2Metadata
    private let patience: Duration
    private let log: Log
    private let now: @Sendable () -> Int64
    private let pacing: MetadataPacing
    private let state = Mutex(State())

    /// `patience` is how long one call waits for a service that does not answer, and for credentials that are refused or
    /// malformed: a role that was attached a moment ago takes a while to be known.
    public convenience init(metadata: EC2Metadata, patience: Duration = .seconds(60), log: Log) {
        self.init(metadata: metadata, patience: patience, log: log, now: { Host.now }, pacing: .real)
    }

    init(
        metadata: EC2Metadata, patience: Duration, log: Log, now: @escaping @Sendable () -> Int64,
        pacing: MetadataPacing
    ) {
        self.metadata = metadata
        self.patience = patience
        self.log = log
        self.now = now
        self.pacing = pacing
    }

    /// Never nil. Throws `StopReason`, `MetadataProblem` or `CredentialProblem`.
    public func credentials(stop: StopFlag) throws -> Credentials? {
        try state.withLock { state in
            let now = now()
            guard let held = state.held, let expires = held.expires, !state.isRefused else {
                let fresh = try fetch(patience: patience, stop: stop)
                accept(fresh, &state)
                return fresh
            }
            let left = expires - now
            let isUsable = left > 0 || state.wasBornExpired
            if left > Self.advisory || (isUsable && now < state.nextAttempt) { return held }
            do {
                // Never so long that the present ones expire in the meantime.
                let limit = max(.zero, min(.seconds(left), patience))
                let fresh = try fetch(patience: left > Self.mandatory ? .zero : left > 0 ? limit : patience, stop: stop)
                accept(fresh, &state)
                return fresh
            } catch let reason as StopReason {
                throw reason
            } catch {
                let still = expires - self.now()
                guard still > 0 || state.wasBornExpired else {
                    throw CredentialProblem.expired(
                        origin: held.origin, cause: Printable.text(String(describing: error)))
                }
                state.nextAttempt = self.now() + Self.interval / 2
                let message = "\(error); the present credentials are good for \(Duration.seconds(max(still, 0)).spoken)"
                if still > Self.mandatory { log.detail(message) } else { log.warning(message) }
                return held
            }
        }
    }

    public func invalidate() {
        state.withLock { $0.isRefused = true }
    }

    private func accept(_ fresh: Credentials, _ state: inout State) {
        let now = now()
        let isExpired = fresh.expires.map { $0 <= now } ?? false
        if isExpired, state.held != fresh {
            log.warning("the credentials of \(fresh.origin) are expired by this machine's clock, fresh as they are")
        }
        state.held = fresh
        state.wasBornExpired = isExpired
        state.isRefused = false
        state.nextAttempt = now + Self.interval
    }

    /// Patience of zero asks once.
    private func fetch(patience: Duration, stop: StopFlag) throws -> Credentials {
        let end = pacing.now() + patience
        var attempts = 0
        while true {
            do {
                let role = try role(until: end, stop: stop)
                guard let body = try get(Self.path + role, until: end, stop: stop) else {
                    // The list named it and it is gone: the profile was detached in between.
                    throw CredentialProblem.noInstanceProfile
                }
                return try RoleCredentialsDocument.credentials(in: body, role: role)
            } catch let problem as CredentialProblem where problem.retryCanHelp {
                attempts += 1
                // IAM needs seconds to know a new role; a document cut off on the way is whole the next time.
                var isSlow = false
                if case .refused = problem { isSlow = true }
                let wait =
                    isSlow ? pacing.delay(after: attempts + 3, ceiling: .seconds(10)) : pacing.delay(after: attempts)
                if pacing.now() + wait >= end { throw problem }
                log.detail("\(problem); trying again")
                try pacing.sleep(wait, stop)
            }
        }
    }

    private func role(until end: Duration, stop: StopFlag) throws -> String {
        guard let body = try get(Self.path, until: end, stop: stop) else { throw CredentialProblem.noInstanceProfile }
        var name = String(decoding: body, as: UTF8.self)
        if name.hasSuffix("\n") { name.removeLast() }
        if name.isEmpty { throw CredentialProblem.noInstanceProfile }
        // It becomes part of a path: no slash, no dots that climb, no line break.
        guard MetadataShape.role.accepts(name) else { throw CredentialProblem.roleName(name) }
        return name
    }

    private func get(_ path: String, until end: Duration, stop: StopFlag) throws -> [UInt8]? {
        try metadata.get(path, limit: 32 << 10, patience: max(.zero, end - pacing.now()), stop: stop)
    }
}
