public import HostSystem

extension StopFlag {
    /// A flag for whatever blocks in a test: five minutes are more than any of them needs, and what hangs ends there.
    public static func bounded() -> StopFlag { StopFlag(deadline: .seconds(300)) }
}
