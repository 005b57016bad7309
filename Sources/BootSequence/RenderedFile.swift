/// One file of the configuration as rendered, not live yet.
public struct RenderedFile: Sendable {
    public enum Place: Sendable, Hashable {
        /// Goes live with the host's configuration.
        case host
        /// Lies inside the release, at this path relative to its root.
        case release(String)
    }

    public let place: Place
    /// Its path is the host's absolute one, for both places.
    public let entry: ConfigurationEntry
    public let bytes: [UInt8]
    /// The template it came from, for messages.
    public let template: String
}
