//! The national clouds: where tokens are requested, and for which audience.

/// A national cloud of the Power Platform. It determines where tokens come from and which audience a flow
/// requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cloud {
    Public,
    /// United States government community cloud, on the worldwide Entra.
    Gcc,
    /// The same with the higher protection level, on the Entra for government.
    GccHigh,
    /// United States Department of Defense.
    Dod,
    /// China, operated by 21Vianet.
    China,
}

impl Cloud {
    pub const ALL: [Cloud; 5] = [
        Cloud::Public,
        Cloud::Gcc,
        Cloud::GccHigh,
        Cloud::Dod,
        Cloud::China,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Gcc => "gcc",
            Self::GccHigh => "gcc-high",
            Self::Dod => "dod",
            Self::China => "china",
        }
    }

    pub fn from_name(name: &str) -> Option<Cloud> {
        Self::ALL.into_iter().find(|cloud| cloud.name() == name)
    }

    /// Where tokens are requested (Microsoft Learn, "National clouds and Microsoft Entra ID").
    pub const fn authority(self) -> &'static str {
        match self {
            Self::Public | Self::Gcc => "https://login.microsoftonline.com",
            Self::GccHigh | Self::Dod => "https://login.microsoftonline.us",
            Self::China => "https://login.partner.microsoftonline.cn",
        }
    }

    /// The audience, which a flow compares byte for byte, including the last slash (Microsoft Learn, "Add
    /// OAuth authentication for HTTP request triggers"). It is also the `resource` for managed identities.
    pub const fn audience(self) -> &'static str {
        match self {
            Self::Public => "https://service.flow.microsoft.com/",
            Self::Gcc => "https://gov.service.flow.microsoft.us/",
            Self::GccHigh => "https://high.service.flow.microsoft.us/",
            Self::Dod => "https://service.flow.appsplatform.us/",
            Self::China => "https://service.powerautomate.cn/",
        }
    }

    /// The scope that yields this audience: the audience and `/.default`. It keeps its double slash, because
    /// Entra removes one (Microsoft Learn, "Scopes and permissions in the Microsoft identity platform").
    pub const fn scope(self) -> &'static str {
        match self {
            Self::Public => "https://service.flow.microsoft.com//.default",
            Self::Gcc => "https://gov.service.flow.microsoft.us//.default",
            Self::GccHigh => "https://high.service.flow.microsoft.us//.default",
            Self::Dod => "https://service.flow.appsplatform.us//.default",
            Self::China => "https://service.powerautomate.cn//.default",
        }
    }
}
