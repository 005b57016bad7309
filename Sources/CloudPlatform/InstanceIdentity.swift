/// Who this instance is, as its platform tells. Nothing in it is secret; everything in it is data from outside: a tag may hold
/// any character, so whoever puts one into a file quotes it for that file.
public struct InstanceIdentity: Sendable, Equatable, Codable {
    public enum Platform: String, Sendable, Codable, CaseIterable {
        case ec2, nocloud, recorded
        /// No metadata of any kind: a machine of one's own.
        case none
    }

    public let platform: Platform
    /// The platform's own identifier, `i-0123456789abcdef0`; empty on a machine without metadata.
    public let id: String
    public let region: String?
    public let zone: String?
    /// The private address: IPv4, or IPv6 in a subnet that has nothing else.
    public let address: String?
    public let type: String?
    /// The machine image, `ami-…`.
    public let image: String?
    public let account: String?
    public let tags: [String: String]
    /// The state that Auto Scaling is bringing this instance to (`InService`); nil outside a group.
    public let autoscalingTargetState: String?

    public init(
        platform: Platform, id: String, region: String? = nil, zone: String? = nil, address: String? = nil,
        type: String? = nil, image: String? = nil, account: String? = nil, tags: [String: String] = [:],
        autoscalingTargetState: String? = nil
    ) {
        self.platform = platform
        self.id = id
        self.region = region
        self.zone = zone
        self.address = address
        self.type = type
        self.image = image
        self.account = account
        self.tags = tags
        self.autoscalingTargetState = autoscalingTargetState
    }
}
