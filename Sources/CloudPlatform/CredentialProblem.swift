internal import HostSystem

/// Why there should be credentials and are none. Never holds one.
public enum CredentialProblem: Error, Sendable, Equatable, CustomStringConvertible {
    /// The instance has no role: no instance profile is attached, or its role was removed.
    case noInstanceProfile
    /// The metadata service named a role that IAM cannot have named so.
    case roleName(String)
    /// The metadata service knows the role and has no credentials for it, with IAM's own code and words.
    case refused(role: String, code: String, message: String)
    /// Credentials that are incomplete or no such document; `why` quotes nothing of it.
    case malformed(role: String, why: String)
    /// The last ones expired, and no new ones can be had.
    case expired(origin: String, cause: String)
    /// One half of a key pair in the environment.
    case incompleteEnvironment(missing: String)
    case file(path: String, why: String)

    public var description: String {
        switch self {
        case .noInstanceProfile: "this instance has no role: no instance profile is attached to it"
        case .roleName(let name):
            "instance metadata names a role that cannot be one: \"\(Printable.text(name, limit: 80))\""
        case .refused(let role, let code, let message):
            "instance metadata has no credentials for the role \(role): \(Printable.text(code, limit: 80))"
                + (message.isEmpty ? "" : " (\(Printable.text(message, limit: 200)))")
        case .malformed(let role, let why): "instance metadata gave malformed credentials for the role \(role): \(why)"
        case .expired(let origin, let cause): "the credentials of the \(origin) have expired: \(cause)"
        case .incompleteEnvironment(let missing): "the environment has one half of a key pair: \(missing) is not set"
        case .file(let path, let why): "\(Printable.text(path)): \(why)"
        }
    }

    public var retryCanHelp: Bool {
        switch self {
        case .refused, .malformed, .expired: true
        case .noInstanceProfile, .roleName, .incompleteEnvironment, .file: false
        }
    }

    /// What the person can do next.
    public var advice: String? {
        switch self {
        case .noInstanceProfile:
            "Attach one (IamInstanceProfile in the launch template), or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
                + "anonymous: true for a public bucket."
        case .refused: "Check that EC2 may assume the role: its trust policy must name ec2.amazonaws.com."
        default: nil
        }
    }
}
