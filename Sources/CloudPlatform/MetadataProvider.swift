public import HostSystem

/// What a platform told about this instance.
public struct InstanceData: Sendable {
    public let identity: InstanceIdentity
    /// As the platform gave it, in whatever form (`UserData` finds the settings in it); nil where there is none or it is empty.
    public let userData: Secret?
    /// For messages: `EC2 instance metadata at http://169.254.169.254`.
    public let source: String

    public init(identity: InstanceIdentity, userData: Secret?, source: String) {
        self.identity = identity
        self.userData = userData
        self.source = source
    }
}

/// One platform that may know this instance. Blocking; safe from any thread. To add a platform: a file with a provider, and
/// its line where the list for `InstanceMetadata` is made.
public protocol MetadataProvider: Sendable {
    /// For messages: `EC2 instance metadata`.
    var name: String { get }
    /// Nil where this machine is, for certain, not of that platform. Throws `StopReason`, or `MetadataProblem` where it is or
    /// may be, but the platform does not tell what amorce needs to know.
    func read(stop: StopFlag) throws -> InstanceData?
}
