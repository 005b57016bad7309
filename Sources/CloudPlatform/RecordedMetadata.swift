public import HostSystem

/// An instance's metadata written down in a file, for a demonstration, a test or a machine without a platform:
///
/// ```json
/// {
///     "instance-id": "i-0123456789abcdef0", "platform": "ec2", "region": "eu-west-1", "zone": "eu-west-1a",
///     "address": "10.0.1.20", "type": "t3.small", "image": "ami-0123456789abcdef0", "account": "123456789012",
///     "tags": { "Name": "front" }, "autoscaling-target-state": "InService", "user-data": "#amorce\napp: boutique\n"
/// }
/// ```
///
/// `instance-id` alone is required. `platform` is what amorce takes the instance for, `recorded` by default. User-data that is
/// not text is given as `user-data-base64`. An unknown key, or a value of another type, is an error.
public struct RecordedMetadata: MetadataProvider {
    static let limit = 4 << 20

    public let name = "recorded metadata"
    private let file: String

    public init(file: String) { self.file = file }

    public func read(stop: StopFlag) throws -> InstanceData? {
        let bytes: [UInt8]
        do {
            bytes = try FileReading.bytes(file, limit: Self.limit)
        } catch let error as HostError {
            throw MetadataProblem.file(path: file, why: error.reason)
        } catch is FileReading.NotRegular {
            throw MetadataProblem.file(path: file, why: "is no regular file")
        } catch is FileReading.TooLarge {
            throw MetadataProblem.tooLarge(item: file, limit: Self.limit)
        }
        guard let members = JSONDocument(bytes)?.object else { throw problem("is not a JSON object") }
        let strings = [
            "platform", "instance-id", "region", "zone", "address", "type", "image", "account",
            "autoscaling-target-state", "user-data", "user-data-base64",
        ]
        let known = Set(strings + ["tags"])
        if let unknown = members.keys.sorted().first(where: { !known.contains($0) }) {
            throw problem("has the unknown key \"\(Printable.text(unknown, limit: 60))\"")
        }
        for key in strings {
            if let value = members[key], value.text == nil { throw problem("has a \"\(key)\" that is not a string") }
        }
        guard let id = members["instance-id"]?.text, !id.isEmpty else { throw problem("has no \"instance-id\"") }
        // They go into log lines, host names and requests: as strict as with the service that is stood in for.
        for key in ["instance-id", "region", "zone", "type", "image"] {
            if let value = members[key]?.text, !MetadataShape.word.accepts(value) {
                throw problem("has the malformed \"\(key)\" \"\(Printable.text(value, limit: 60))\"")
            }
        }
        let platform = members["platform"]?.text ?? InstanceIdentity.Platform.recorded.rawValue
        guard let platform = InstanceIdentity.Platform(rawValue: platform) else {
            let all = InstanceIdentity.Platform.allCases.map(\.rawValue).joined(separator: ", ")
            throw problem("has a \"platform\" that is none of \(all)")
        }
        return InstanceData(
            identity: InstanceIdentity(
                platform: platform, id: id, region: members["region"]?.text, zone: members["zone"]?.text,
                address: members["address"]?.text, type: members["type"]?.text, image: members["image"]?.text,
                account: members["account"]?.text, tags: try tags(members["tags"]),
                autoscalingTargetState: members["autoscaling-target-state"]?.text),
            userData: try userData(members), source: "the recording \(Printable.text(file))")
    }

    private func tags(_ value: JSONDocument?) throws(MetadataProblem) -> [String: String] {
        guard let value else { return [:] }
        guard let members = value.object else { throw problem("has \"tags\" that are not an object") }
        var result: [String: String] = [:]
        for (key, value) in members {
            guard let text = value.text else { throw problem("has a tag that is not a string") }
            result[key] = text
        }
        return result
    }

    private func userData(_ members: [String: JSONDocument]) throws(MetadataProblem) -> Secret? {
        let bytes: [UInt8]
        switch (members["user-data"]?.text, members["user-data-base64"]?.text) {
        case (nil, nil): return nil
        case (let text?, nil): bytes = Array(text.utf8)
        case (nil, let encoded?):
            guard let decoded = TransferEncoding.base64(Array(encoded.utf8)) else {
                throw problem("has a \"user-data-base64\" that is not base64")
            }
            bytes = decoded
        case (_?, _?): throw problem("has both \"user-data\" and \"user-data-base64\"")
        }
        return bytes.isEmpty ? nil : Secret(bytes: bytes)
    }

    private func problem(_ why: String) -> MetadataProblem { .file(path: file, why: why) }
}
