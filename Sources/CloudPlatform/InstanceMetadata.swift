public import HostSystem

/// Finds out who this instance is by asking each platform in a fixed order; the first that knows decides.
///
/// A fault is not an absence: where a platform that may be there fails, reading fails, and amorce does not go on as if the
/// machine had no metadata. The one exception is an address at which nothing at all answered: then a platform further down
/// that certainly knows (a seed on disk) is believed, and only where none does, the silence is the error.
public struct InstanceMetadata: Sendable {
    private let providers: [any MetadataProvider]
    private let log: Log

    public init(providers: [any MetadataProvider], log: Log) {
        self.providers = providers
        self.log = log
    }

    /// Throws `StopReason` or `MetadataProblem`. A machine on which every platform is certainly absent gets an identity of the
    /// platform `none`.
    public func read(stop: StopFlag) throws -> InstanceData {
        var silence: MetadataProblem?
        for (index, provider) in providers.enumerated() {
            try stop.check()
            do {
                guard let data = try provider.read(stop: stop) else {
                    log.detail("\(provider.name): not on this machine")
                    continue
                }
                if let silence { log.warning("\(silence); using \(data.source)") }
                let unasked = providers[(index + 1)...].map(\.name).joined(separator: ", ")
                log.detail("this instance is \(Self.spoken(data.identity)), by \(data.source)")
                if !unasked.isEmpty { log.detail("not asked, because the order is fixed: \(unasked)") }
                return data
            } catch let problem as MetadataProblem {
                guard case .unreachable = problem else { throw problem }
                log.detail("\(provider.name): no answer")
                if silence == nil { silence = problem }
            }
        }
        if let silence { throw silence }
        log.detail("this machine has no instance metadata")
        return InstanceData(
            identity: InstanceIdentity(platform: .none, id: ""), userData: nil, source: "no instance metadata")
    }

    private static func spoken(_ identity: InstanceIdentity) -> String {
        let details = [identity.type, identity.zone ?? identity.region].compactMap { $0 }
        let id = Printable.text(identity.id, limit: 80)
        return details.isEmpty ? id : "\(id) (\(Printable.text(details.joined(separator: ", "), limit: 120)))"
    }
}
