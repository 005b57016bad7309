public import HostSystem

/// Where AWS credentials come from, first found first used: the environment (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
/// `AWS_SESSION_TOKEN`), the shared credentials file (`AWS_SHARED_CREDENTIALS_FILE`, else `~/.aws/credentials`; `AWS_PROFILE`,
/// else `default`), the instance's role. The role is asked for only when it is needed, and only on EC2 or where the platform
/// is not known. Blocking; safe from any thread.
public struct CredentialChain: CredentialProvider {
    private enum Named: Sendable {
        case none
        case keys(Credentials)
        case problem(CredentialProblem)
    }

    private let named: Named
    private let file: String?
    private let isFileNamed: Bool
    private let profile: String
    private let isProfileNamed: Bool
    private let role: RoleCredentials?
    private let isPlatformKnown: Bool
    private let log: Log

    /// `platform` is what `InstanceMetadata` found out, or nil where nobody has asked; `role` nil leaves the instance out.
    /// Nothing is read or asked before the first call.
    public init(
        environment: [String: String], platform: InstanceIdentity.Platform?, role: RoleCredentials?, log: Log
    ) {
        // The keys are taken out of the environment here, so that nothing that could be printed holds them.
        func value(_ name: String) -> String? { environment[name].flatMap { $0.isEmpty ? nil : $0 } }
        switch (value("AWS_ACCESS_KEY_ID"), value("AWS_SECRET_ACCESS_KEY")) {
        case (nil, nil): named = .none
        case (_?, nil): named = .problem(.incompleteEnvironment(missing: "AWS_SECRET_ACCESS_KEY"))
        case (nil, _?): named = .problem(.incompleteEnvironment(missing: "AWS_ACCESS_KEY_ID"))
        case (let key?, let secret?):
            named = .keys(
                Credentials(
                    accessKey: key, secretKey: Secret(secret),
                    sessionToken: value("AWS_SESSION_TOKEN").map { Secret($0) },
                    origin: "environment"))
        }
        // A system service has no HOME (systemd.exec(5)): then there is no such file.
        let home = value("HOME").map { $0 == "/" ? "" : $0 }
        if let path = value("AWS_SHARED_CREDENTIALS_FILE") {
            file = path.hasPrefix("~/") ? home.map { $0 + path.dropFirst() } ?? path : path
            isFileNamed = true
        } else {
            file = home.map { $0 + "/.aws/credentials" }
            isFileNamed = false
        }
        profile = value("AWS_PROFILE") ?? "default"
        isProfileNamed = value("AWS_PROFILE") != nil
        self.role = platform == nil || platform == .ec2 ? role : nil
        isPlatformKnown = platform == .ec2
        self.log = log
    }

    /// Nil where no place has any. Throws `StopReason`, `CredentialProblem` or `MetadataProblem`.
    public func credentials(stop: StopFlag) throws -> Credentials? {
        try stop.check()
        switch named {
        case .keys(let credentials): return credentials
        case .problem(let problem): throw problem
        case .none: break
        }
        if let credentials = try fromFile() { return credentials }
        do {
            return try role?.credentials(stop: stop)
        } catch MetadataProblem.switchedOff {
            return nil
        } catch MetadataProblem.foreign where !isPlatformKnown {
            return nil
        }
    }

    /// The environment does not change, and the file is read each time: only the role holds anything.
    public func invalidate() { role?.invalidate() }

    private func fromFile() throws -> Credentials? {
        guard let file else {
            if isProfileNamed {
                log.detail("AWS_PROFILE is set, but there is no HOME to look for a credentials file in")
            }
            return nil
        }
        let bytes: [UInt8]?
        do {
            bytes = try FileReading.bytesIfPresent(file, limit: 1 << 20)
        } catch let error as HostError {
            throw CredentialProblem.file(path: file, why: error.reason)
        } catch is FileReading.NotRegular {
            throw CredentialProblem.file(path: file, why: "is no regular file")
        } catch let error as FileReading.TooLarge {
            throw CredentialProblem.file(path: file, why: "is larger than \(ByteCount(error.limit))")
        }
        guard let bytes else {
            // Somebody who names a file or a profile means it; the usual places may well be empty.
            if isFileNamed || isProfileNamed { throw CredentialProblem.file(path: file, why: "there is no such file") }
            return nil
        }
        let text = String(decoding: bytes, as: UTF8.self)
        if let found = try SharedCredentialsFile.credentials(profile: profile, in: text, path: file) { return found }
        if isProfileNamed {
            throw CredentialProblem.file(
                path: file, why: "has no key pair for the profile \(Printable.text(profile, limit: 80))")
        }
        return nil
    }
}
