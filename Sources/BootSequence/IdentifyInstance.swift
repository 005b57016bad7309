internal import CloudPlatform
internal import HostSystem

/// Asks who and where this instance is.
struct IdentifyInstance {
    let layout: HostLayout
    let environment: [String: String]
    /// A recorded instance in place of a real one.
    let recorded: String?
    let transport: any HTTPTransport
    let log: Log
    /// A metadata service that is not up yet (the network is coming up) is waited for this long.
    private static let patience = Duration.seconds(120)

    /// The instance, and the metadata service where it was asked (it also gives the credentials of the instance's role).
    func identify(_ sources: [MetadataSource], stop: StopFlag) throws -> (data: InstanceData, service: EC2Metadata?) {
        if let recorded {
            return (try InstanceMetadata(providers: [RecordedMetadata(file: recorded)], log: log).read(stop: stop), nil)
        }
        var providers: [any MetadataProvider] = []
        var service: EC2Metadata?
        for source in sources {
            switch source {
            case .nocloud: providers.append(NoCloudSeed(layout: layout, log: log))
            case .ec2:
                // A scratch root is no instance: the machine's own metadata must not get into it.
                let isNamed = environment["AWS_EC2_METADATA_SERVICE_ENDPOINT"] != nil
                guard layout.isRealHost || isNamed else { continue }
                let metadata = EC2Metadata(
                    transport: transport, environment: environment, patience: Self.patience, log: log)
                providers.append(metadata)
                service = metadata
            case .none: break
            }
        }
        do {
            return (try InstanceMetadata(providers: providers, log: log).read(stop: stop), service)
        } catch MetadataProblem.unreachable where sources.contains(.none) {
            // The settings say that a machine without metadata is fine.
            return (try InstanceMetadata(providers: [], log: log).read(stop: stop), nil)
        }
    }
}
